"""Builds Kubernetes, etcd and helm from their Go modules, once for each version."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.cluster.local.places import BIN, HERE, LOGS, VERSION, LocalClusterError

Say = Callable[[str], None]

_VERSION_PACKAGE: Final = "k8s.io/component-base/version"
_KUBERNETES: Final = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl")


def build(say: Say) -> None:
    """Builds what is missing; the first time this takes about ten minutes on two cores."""
    major, minor, _ = VERSION.removeprefix("v").split(".")
    named = {"gitVersion": VERSION, "gitMajor": major, "gitMinor": minor}
    stamp = " ".join(f"-X {_VERSION_PACKAGE}.{name}={value}" for name, value in named.items())
    missing = [name for name in _KUBERNETES if not (BIN / name).exists()]
    if missing:
        packages = [f"k8s.io/kubernetes/cmd/{name}" for name in missing]
        _go(say, f"Kubernetes {VERSION}", HERE / "kubernetes", f"-s -w {stamp}", packages)
    if not (BIN / "etcd").exists():
        _go(say, "etcd", HERE / "etcd", "-s -w", ["go.etcd.io/etcd/server/v3"], output="etcd")
    if not (BIN / "helm").exists():
        _go(say, "helm", HERE / "helm", "-s -w", ["helm.sh/helm/v4/cmd/helm"])


def _go(say: Say, what: str, module: Path, flags: str, packages: list[str], *, output: str = "") -> None:
    if shutil.which("go") is None:
        raise LocalClusterError("Go is needed to build a cluster: install it, or give a cluster by KUBECONFIG")
    scratch = BIN / f".{os.getpid()}"
    scratch.mkdir(parents=True, exist_ok=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"build-{module.name}.log"
    command = ["go", "build", "-ldflags", flags, "-o", f"{scratch}/{output}", *packages]
    started = time.monotonic()
    say(f"building {what} from its Go modules (the first time takes minutes); log: {log.name}")
    try:
        with log.open("wb") as out:
            building = subprocess.Popen(
                command, cwd=module, env=os.environ | {"CGO_ENABLED": "0"}, stdout=out, stderr=subprocess.STDOUT
            )
            while True:
                try:
                    code = building.wait(timeout=10)
                    break
                except subprocess.TimeoutExpired:
                    say(f"building {what}: {time.monotonic() - started:.0f} s")
        if code != 0:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
            raise LocalClusterError(f"{what} could not be built:\n{tail}")
        for built in scratch.iterdir():
            built.replace(BIN / built.name)  # in one step: what is there is whole
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
