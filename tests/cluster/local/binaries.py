"""Builds Kubernetes, etcd and helm from their Go modules, once for each version."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.local.places import BIN, HERE, VERSION, LocalClusterError, Say


@dataclass(frozen=True, slots=True)
class _Module:
    """A go.mod of ours, and the programs that it pins."""

    folder: str
    what: str
    packages: dict[str, str]
    flags: str = "-s -w"

    @property
    def key(self) -> str:
        """Changes with the versions: a program of another key is built again."""
        pins = b"".join((HERE / self.folder / name).read_bytes() for name in ("go.mod", "go.sum"))
        return hashlib.sha256(pins + self.flags.encode()).hexdigest()


def _stamp() -> str:
    # Without a version, clients see v0.0.0 and feature checks go wrong.
    major, minor, _ = VERSION.removeprefix("v").split(".")
    named = {"gitVersion": VERSION, "gitMajor": major, "gitMinor": minor}
    return " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in named.items())


def _kubernetes(*names: str) -> dict[str, str]:
    return {name: f"k8s.io/kubernetes/cmd/{name}" for name in names}


_KUBECTL: Final = _Module("kubernetes", f"kubectl {VERSION}", _kubernetes("kubectl"), f"-s -w {_stamp()}")
_KUBERNETES: Final = _Module(
    "kubernetes",
    f"Kubernetes {VERSION}",
    _kubernetes("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl"),
    f"-s -w {_stamp()}",
)
_ETCD: Final = _Module("etcd", "etcd", {"etcd": "go.etcd.io/etcd/server/v3"})
_HELM: Final = _Module("helm", "helm", {"helm": "helm.sh/helm/v4/cmd/helm"})


def build(say: Say) -> None:
    """Builds what is missing; the first time this takes about ten minutes on two cores."""
    for module in (_KUBERNETES, _ETCD, _HELM):
        _build(module, say)


def build_clients(say: Say) -> None:
    """Builds kubectl and helm where the machine has none, for a cluster that needs nothing else."""
    for name, module in (("kubectl", _KUBECTL), ("helm", _HELM)):
        if shutil.which(name) is None:
            _build(module, say)


def _build(module: _Module, say: Say) -> None:
    keys = {name: BIN / f".{name}.key" for name in module.packages}
    missing = [
        name
        for name, key in keys.items()
        if not ((BIN / name).exists() and key.exists() and key.read_text() == module.key)
    ]
    if not missing:
        return
    if shutil.which("go") is None:
        raise LocalClusterError("Go is needed to build a cluster: install it, or give a cluster by KUBECONFIG")
    scratch = BIN / f".{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    # With one package, -o may name the program, which the package itself may not (etcd's is called v3).
    output = missing[0] if len(missing) == 1 else ""
    packages = [module.packages[name] for name in missing]
    try:
        _go(module, ["-ldflags", module.flags, "-o", f"{scratch}/{output}", *packages], say)
        for built in scratch.iterdir():
            built.replace(BIN / built.name)  # in one step: what is there is whole
            keys[built.name].write_text(module.key)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _go(module: _Module, arguments: list[str], say: Say) -> None:
    started = time.monotonic()
    log = BIN / f"build-{module.folder}.log"
    say(f"building {module.what} from its Go modules (the first time takes minutes); log: {log}")
    with log.open("wb") as out:
        building = subprocess.Popen(
            ["go", "build", "-v", *arguments],
            cwd=HERE / module.folder,
            env=os.environ | {"CGO_ENABLED": "0"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        while True:
            try:
                code = building.wait(timeout=10)
                break
            except subprocess.TimeoutExpired:
                say(f"building {module.what}: {time.monotonic() - started:.0f} s{_progress(log)}")
            except BaseException:
                building.kill()  # an interrupted run leaves no build behind
                raise
    if code != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise LocalClusterError(f"{module.what} could not be built:\n{tail}")


def _progress(log: Path) -> str:
    """What `go build -v` has named so far; with a warm cache it names nothing."""
    lines = log.read_text(errors="replace").splitlines()
    return f", {len(lines)} packages so far, now {lines[-1]}" if lines else ""
