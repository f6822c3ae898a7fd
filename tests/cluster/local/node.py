"""One real node: containerd and a kubelet; needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Final

from tests.cluster.local import pki, processes
from tests.cluster.local.binaries import Say
from tests.cluster.local.places import ADMIN, BIN, NODE, SOCKET, STATE, LocalClusterError

_PACKAGES: Final = ("containerd", "runc", "containernetworking-plugins", "busybox-static", "debootstrap")
_TOOLS: Final = ("containerd", "ctr", "runc", "debootstrap")

_CONTAINERD: Final = """version = 2
root = "{state}/containerd/root"
state = "{state}/containerd/state"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/library/valetkey-pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{state}/cni"
"""

_KUBELET: Final = """apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 127.0.0.1
port: 10350
healthzBindAddress: 127.0.0.1
healthzPort: 10348
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
"""


def possible() -> bool:
    """Whether this user can run containers."""
    return os.geteuid() == 0


def up(say: Say) -> None:
    """Starts containerd and the kubelet, and waits until the node is ready."""
    _install(say)
    (STATE / "cni").mkdir(parents=True, exist_ok=True)
    (STATE / "cni" / "10-lo.conflist").write_text(
        '{"cniVersion": "0.4.0", "name": "lo", "plugins": [{"type": "loopback"}]}'
    )
    (STATE / "containerd.toml").write_text(_CONTAINERD.format(state=STATE, socket=SOCKET))
    (STATE / "kubelet.yaml").write_text(_KUBELET.format(pki=pki.PKI, socket=SOCKET))
    _name_the_node()
    processes.start("containerd", ["containerd", "--config", STATE / "containerd.toml"])
    processes.until("containerd", lambda: _ctr("version") is not None, seconds=30)
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
    processes.until("kubelet", _ready, seconds=60)


def down() -> None:
    """Ends the kubelet, every container and containerd, and takes their mounts away."""
    processes.stop("kubelet")
    if processes.running("containerd") is not None:
        for task in (_ctr("tasks", "ls", "-q") or "").split():
            _ctr("tasks", "kill", "-s", "SIGKILL", task)
        time.sleep(1)
        for container in (_ctr("containers", "ls", "-q") or "").split():
            _ctr("tasks", "rm", "-f", container)
            _ctr("containers", "rm", container)
    processes.stop("containerd")
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{STATE}/")), reverse=True):
        subprocess.run(["umount", "-l", mount], check=False, capture_output=True)


def images() -> set[str]:
    """Names of the images that the node has."""
    return set((_ctr("images", "ls", "-q") or "").split())


def import_image(archive: Path) -> None:
    """Gives the node an image."""
    done = subprocess.run(
        ["ctr", "-a", str(SOCKET), "-n", "k8s.io", "images", "import", str(archive)], capture_output=True, check=False
    )
    if done.returncode != 0:
        raise LocalClusterError(f"{archive.name} could not be imported: {done.stderr.decode(errors='replace')}")


def _ctr(*arguments: str) -> str | None:
    done = subprocess.run(
        ["ctr", "-a", str(SOCKET), "-n", "k8s.io", *arguments], capture_output=True, check=False, timeout=30
    )
    return done.stdout.decode() if done.returncode == 0 else None


def _ready() -> bool:
    command = [str(BIN / "kubectl"), f"--kubeconfig={ADMIN}", "get", "node", NODE, "--no-headers"]
    done = subprocess.run(command, capture_output=True, check=False)
    return b" Ready" in done.stdout


def _install(say: Say) -> None:
    if all(shutil.which(tool) for tool in _TOOLS) and Path("/bin/busybox").exists():
        return
    if shutil.which("apt-get") is None:
        raise LocalClusterError(f"install {', '.join(_PACKAGES)}: they run the pods")
    say(f"installing {', '.join(_PACKAGES)}")
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", *_PACKAGES]):
        done = subprocess.run(command, capture_output=True, env=quiet, check=False)
        if done.returncode != 0:
            raise LocalClusterError(f"{' '.join(command)} failed:\n{done.stderr.decode(errors='replace')[-2000:]}")


def _name_the_node() -> None:
    # So that logs and exec reach the kubelet over loopback.
    hosts = Path("/etc/hosts")
    text = hosts.read_text()
    if NODE not in text.split():
        hosts.write_text(f"{text.rstrip()}\n127.0.0.1 {NODE}\n")
