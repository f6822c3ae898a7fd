"""The operator's replicas: which one leads, and their processes on this machine."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from tests.cluster.api import OPERATOR, SYSTEM, Api, Caller

LEADER = f"/apis/valetkey.dev/v1alpha1/namespaces/{SYSTEM}/leaders/valetkey"


async def leader(api: Api) -> tuple[str, str]:
    """The name and uid of the pod that leads, or led last; empty where there is no Leader."""
    _, body = await api.get(LEADER)
    name, _, uid = body.get("spec", {}).get("holderIdentity", "").partition("_")
    return name, uid


def replica(number: int) -> Caller:
    """The operator with the token of one of its pods, a made-up one, whom RBAC refuses nothing."""
    key = "authentication.kubernetes.io/pod-"
    extra = {f"{key}name": (f"valetkey-{number}",), f"{key}uid": (f"uid-{number}",)}
    return Caller(user=OPERATOR, groups=("system:masters",), extra=extra)


def process(pod_name: str) -> int:
    """The operator's process in a pod of this node; raises RuntimeError where there is none."""
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (path / "cmdline").read_bytes().split(b"\0")
            environment = (path / "environ").read_bytes().split(b"\0")
            if command[1:4] == [b"-m", b"valetkey", b"operator"] and f"POD_NAME={pod_name}".encode() in environment:
                return int(path.name)
    raise RuntimeError(f"{pod_name} has no process on this machine")
