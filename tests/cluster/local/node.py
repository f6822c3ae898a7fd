"""One real node: containerd and a kubelet; needs root."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

from tests.cluster.local import packages, pki, processes
from tests.cluster.local.containers import clear, ctr
from tests.cluster.local.places import ADMIN, BIN, NODE, SOCKET, STATE, LocalClusterError

PARTS: Final = ("kubelet", "containerd")
"""In the order in which they are ended."""
_KUBELET_PORT: Final = 10350
_HEALTH_PORT: Final = 10348

_CONTAINERD: Final = """version = 2
root = "{state}/containerd/root"
state = "{state}/containerd/state"
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{state}/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/library/valetkey-pause:1"
  disable_apparmor = true
  # Without it runc fails where even root may not lower a process's badness.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{state}/cni"
"""

# A full disk of the machine's must not evict pods or take away images that no registry can give back.
_KUBELET: Final = """apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 127.0.0.1
port: {port}
healthzBindAddress: 127.0.0.1
healthzPort: {health}
authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {pki}/ca.crt}}}}
authorization: {{mode: Webhook}}
tlsCertFile: {pki}/kubelet.crt
tlsPrivateKeyFile: {pki}/kubelet.key
containerRuntimeEndpoint: unix://{socket}
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
localStorageCapacityIsolation: false
imageGCHighThresholdPercent: 100
evictionHard: {{nodefs.available: "0%", nodefs.inodesFree: "0%", imagefs.available: "0%", imagefs.inodesFree: "0%"}}
"""


def possible() -> bool:
    """Whether this user can run containers."""
    return os.geteuid() == 0


def addresses() -> dict[str, tuple[tuple[str, int], ...]]:
    """Where each part listens."""
    return {"kubelet": (("127.0.0.1", _KUBELET_PORT), ("127.0.0.1", _HEALTH_PORT))}


def up() -> None:
    """Starts containerd and the kubelet, and waits until the node is ready."""
    (STATE / "cni").mkdir(parents=True, exist_ok=True)
    (STATE / "cni" / "10-lo.conflist").write_text(
        '{"cniVersion": "0.4.0", "name": "lo", "plugins": [{"type": "loopback"}]}'
    )
    (STATE / "kubelet.yaml").write_text(
        _KUBELET.format(pki=pki.PKI, socket=SOCKET, port=_KUBELET_PORT, health=_HEALTH_PORT)
    )
    _name_the_node()
    containerd()
    processes.start(
        "kubelet",
        [
            BIN / "kubelet",
            f"--config={STATE}/kubelet.yaml",
            f"--kubeconfig={pki.kubeconfig('kubelet')}",
            f"--hostname-override={NODE}",
            f"--root-dir={STATE}/kubelet",
        ],
    )
    processes.until("kubelet", _ready, seconds=90)


def containerd() -> None:
    """Starts containerd, which finds again whatever containers an earlier one left."""
    config = _CONTAINERD.format(state=STATE, socket=SOCKET, plugins=packages.loopback().parent)
    (STATE / "containerd.toml").write_text(config)
    processes.start("containerd", ["containerd", "--config", STATE / "containerd.toml"])
    processes.until("containerd", lambda: ctr("version") is not None, seconds=30)


def down() -> None:
    """Ends the kubelet, every container and containerd, and takes their mounts away; mends a half-dead node first."""
    processes.stop("kubelet")
    tasks = STATE / "containerd" / "state" / "io.containerd.runtime.v2.task" / "k8s.io"
    if processes.running("containerd") is None and tasks.exists() and any(tasks.iterdir()):
        containerd()
    if processes.running("containerd") is not None:
        clear()
    processes.stop("containerd")
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{STATE}/")), reverse=True):
        subprocess.run(["umount", "-l", mount], check=False, capture_output=True)


def healthy() -> bool:
    """Whether containerd and the kubelet run and the node is ready."""
    return all(processes.running(part) is not None for part in PARTS) and _ready()


def images() -> set[str]:
    """Names of the images that the node has."""
    return set((ctr("images", "ls", "-q") or "").split())


def import_image(archive: Path) -> None:
    """Gives the node an image."""
    command = ["ctr", "-a", str(SOCKET), "-n", "k8s.io", "images", "import", str(archive)]
    # The image that it takes the place of is collected meanwhile, and sometimes a layer of the new one with it.
    for _ in range(3):
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode == 0:
            return
        time.sleep(1)
    raise LocalClusterError(f"{archive.name} could not be imported: {done.stderr.decode(errors='replace')}")


def _ready() -> bool:
    # The node's own word may be of an earlier kubelet; the kubelet's alone does not mean that it has registered.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(f"http://127.0.0.1:{_HEALTH_PORT}/healthz", timeout=3).close()
    except (urllib.error.URLError, OSError):
        return False
    command = [str(BIN / "kubectl"), f"--kubeconfig={ADMIN}", "get", "node", NODE, "--no-headers"]
    done = subprocess.run(command, capture_output=True, check=False)
    return done.stdout.split()[1:2] == [b"Ready"]


def _name_the_node() -> None:
    # So that logs and exec reach the kubelet over loopback.
    hosts = Path("/etc/hosts")
    text = hosts.read_text()
    if NODE not in text.split():
        hosts.write_text(f"{text.rstrip()}\n127.0.0.1 {NODE}\n")
