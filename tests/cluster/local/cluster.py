"""One way to a cluster for tests, demo and people: the first that works."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.cluster.local import binaries, controlplane, kind, node, pki, processes
from tests.cluster.local.binaries import Say
from tests.cluster.local.places import ADMIN, API, AUDIT_LOG, BIN, CACHE, NODE, STATE, LocalClusterError


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that answers."""

    kubeconfig: Path
    source: Literal["given", "kind", "built"]
    path: tuple[Path, ...]
    """Where kubectl and helm are, before PATH."""
    node: str | None
    """A node that runs pods; None where there is only a control plane."""
    audit_log: Path | None
    """The API server's audit log, where it can be read."""

    @property
    def environment(self) -> dict[str, str]:
        """The environment for kubectl and helm."""
        path = os.pathsep.join([*map(str, self.path), os.environ["PATH"]])
        return os.environ | {"KUBECONFIG": str(self.kubeconfig), "PATH": path}


def up(say: Say) -> Cluster:
    """Gives a cluster that answers; safe to repeat, and mends what an earlier run left broken."""
    given = os.environ.get("KUBECONFIG")
    if given:
        return _given(Path(given))
    with _alone(say):
        if kind.possible():
            if shutil.which("helm") is None or shutil.which("kubectl") is None:
                binaries.build(say)
            kind.up(say)
            return Cluster(kind.KUBECONFIG, "kind", (BIN,), kind.NODE, None)
        binaries.build(say)
        _mend(say)
        pki.make()
        _refuse_foreign()
        say("starting the control plane")
        controlplane.up()
        if not node.possible():
            say("not root: a control plane only, pods do not run")
            return Cluster(ADMIN, "built", (BIN,), None, AUDIT_LOG)
        say("starting the node")
        node.up(say)
        from tests.cluster.local import images

        images.load_small(say)
        return Cluster(ADMIN, "built", (BIN,), NODE, AUDIT_LOG)


def down(say: Say, *, everything: bool = False) -> None:
    """Ends what `up` started; with `everything`, its state goes too. Binaries stay."""
    if os.environ.get("KUBECONFIG"):
        say("a given cluster is left as it is")
        return
    with _alone(say):
        if kind.possible():
            kind.down()
        if node.possible():
            node.down()
        for part in controlplane.PARTS:
            processes.stop(part)
        if everything:
            shutil.rmtree(STATE, ignore_errors=True)
    say("the local cluster is down")


def _given(kubeconfig: Path) -> Cluster:
    for tool in ("kubectl", "helm"):
        if shutil.which(tool) is None and not (BIN / tool).exists():
            raise LocalClusterError(f"{tool} is needed for a given cluster: install it")
    cluster = Cluster(kubeconfig, "given", (BIN,), None, None)
    nodes = subprocess.run(
        ["kubectl", "get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"],
        env=cluster.environment,
        capture_output=True,
        check=False,
    )
    if nodes.returncode != 0:
        raise LocalClusterError(f"the cluster of KUBECONFIG does not answer: {nodes.stderr.decode(errors='replace')}")
    ours = kubeconfig == ADMIN
    name = nodes.stdout.decode() or None
    return Cluster(kubeconfig, "built" if ours else "given", (BIN,), name, AUDIT_LOG if ours else None)


def _mend(say: Say) -> None:
    """Clears what a killed run left: processes without their mates, and data of another set of keys."""
    parts = (*controlplane.PARTS, "containerd", "kubelet")
    alive = [part for part in parts if processes.running(part) is not None]
    stale = not pki.PKI.exists() and (STATE / "etcd").exists()
    if stale or (alive and not {"etcd", "apiserver"} <= set(alive)):
        say("an earlier run was cut off: clearing what it left")
        if node.possible():
            node.down()
        for part in parts:
            processes.stop(part)
    if stale:
        shutil.rmtree(STATE / "etcd", ignore_errors=True)


def _refuse_foreign() -> None:
    """Another's API server under our address would be taken for ours."""
    if processes.running("apiserver") is not None:
        return
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex((API, 443)) == 0:
            raise LocalClusterError(
                f"{API}:443 is taken by a process that the local cluster did not start; end it first"
            )


@contextmanager
def _alone(say: Say) -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run is at work on the local cluster: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
