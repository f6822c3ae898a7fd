"""One way to a cluster for tests, demo and people: the first that works."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.cluster.local import binaries, busybox, controlplane, kind, node, packages, pki, ports, processes
from tests.cluster.local.lock import alone
from tests.cluster.local.places import ADMIN, AUDIT_LOG, BIN, NODE, STATE, LocalClusterError, Say


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
    given = _given_on_purpose()
    if given is not None:
        return _given(given, say)
    with alone(say):
        if _by_kind():
            binaries.build_clients(say)
            kind.up(say)
            return Cluster(kind.KUBECONFIG, "kind", (BIN,), kind.NODE, None)
        return _built(say)


def running() -> bool:
    """Whether `up` would have nothing to make: a cluster is given, or the local one answers."""
    if _given_on_purpose() is not None:
        return True  # `up` says what is wrong with it
    kubeconfig = kind.KUBECONFIG if _by_kind() else ADMIN
    kubectl = shutil.which("kubectl", path=os.pathsep.join([str(BIN), os.environ["PATH"]]))
    if kubectl is None or not kubeconfig.exists():
        return False
    command = [kubectl, f"--kubeconfig={kubeconfig}", "get", "--raw", "/readyz", "--request-timeout=20s"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def down(say: Say, *, everything: bool = False) -> None:
    """Ends what `up` started; with `everything`, its state goes too. Binaries stay."""
    if _given_on_purpose() is not None:
        say("a given cluster is left as it is")
        return
    with alone(say):
        if kind.possible():
            kind.down()
        _stop()
        if everything:
            shutil.rmtree(STATE, ignore_errors=True)
    say("the local cluster is down")


def load_image(cluster: Cluster, archive: Path) -> None:
    """Gives the cluster's node an image, from a docker-archive."""
    match cluster.source:
        case "kind":
            kind.import_image(archive)
        case "built" if cluster.node is not None:
            node.import_image(archive)
        case _:
            raise LocalClusterError(f"{archive.name} cannot be loaded: this cluster has no node of ours")


def _given_on_purpose() -> str | None:
    """KUBECONFIG, unless it only repeats what `env` printed."""
    given = os.environ.get("KUBECONFIG", "")
    return None if given in ("", str(ADMIN), str(kind.KUBECONFIG)) else given


def _by_kind() -> bool:
    return os.environ.get("KUBECONFIG") != str(ADMIN) and kind.possible()


def _given(kubeconfig: str, say: Say) -> Cluster:
    binaries.build_clients(say)
    cluster = Cluster(Path(kubeconfig), "given", (BIN,), None, None)
    # A node that says Ready: tests may have made others that are only objects.
    template = r'{range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}'
    nodes = subprocess.run(
        ["kubectl", "get", "nodes", "--request-timeout=20s", "-o", f"jsonpath={template}"],
        env=cluster.environment,
        capture_output=True,
        check=False,
    )
    if nodes.returncode != 0:
        raise LocalClusterError(f"the cluster of KUBECONFIG does not answer: {nodes.stderr.decode(errors='replace')}")
    ready = [line.split()[0] for line in nodes.stdout.decode().splitlines() if line.endswith(" True")]
    return Cluster(cluster.kubeconfig, "given", cluster.path, ready[0] if ready else None, None)


def _built(say: Say) -> Cluster:
    pods = node.possible()
    cluster = Cluster(ADMIN, "built", (BIN,), NODE if pods else None, AUDIT_LOG)
    binaries.build(say)
    _clear_stale(say)
    if pods:
        packages.install(say)
    pki.make()
    if not controlplane.healthy():
        _refuse_foreign(controlplane.addresses())
        say("starting the control plane")
        controlplane.up()
    if not pods:
        say("not root: a control plane only, pods do not run")
        return cluster
    if not node.healthy():
        _refuse_foreign(node.addresses())
        say("starting the node")
        node.up()
    busybox.load(say)
    return cluster


def _stop() -> None:
    if node.possible():
        node.down()
    for part in controlplane.PARTS:
        processes.stop(part)


def _clear_stale(say: Say) -> None:
    """Data of another set of keys is of no use: accounts, tokens and pods in it can no longer be checked."""
    data = STATE / "etcd"
    if data.exists() and pki.newer_than(data):
        say("an earlier run was cut off: clearing what it left")
        _stop()
        for folder in (data, STATE / "kubelet"):
            shutil.rmtree(folder, ignore_errors=True)


def _refuse_foreign(addresses: Mapping[str, tuple[tuple[str, int], ...]]) -> None:
    """Another's API server under our address would be taken for ours."""
    for part, places in addresses.items():
        if processes.running(part) is not None:
            continue
        for address, port in places:
            holder = ports.holder(address, port)
            if holder is not None:
                raise LocalClusterError(
                    f"{address}:{port}, where {part} is to listen, is held by {holder}, "
                    "which the local cluster did not start: end it first"
                )
