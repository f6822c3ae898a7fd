"""etcd, API server, controller-manager and scheduler, every address in 127.0.0.0/8."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.local import pki, processes
from tests.cluster.local.places import API, AUDIT_LOG, BIN, LOGS, STATE, api_port

_SCHEDULER: Final = 10359
PARTS: Final = ("scheduler", "controller-manager", "apiserver", "etcd")
"""In the order in which they are ended."""

_AUDIT: Final = """apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """Where one control plane listens, and where it keeps what it writes; all have the same keys."""

    state: Path
    audit_log: Path
    address: str
    port: int
    etcd: int
    peer: int
    controllers: int

    @property
    def server(self) -> str:
        """The API server's address."""
        return f"https://{self.address}:{self.port}"

    def ready(self, part: str) -> bool:
        """Whether etcd, the API server or the controller-manager serves."""
        match part:
            case "etcd":
                return answers(f"http://127.0.0.1:{self.etcd}/health")
            case "apiserver":
                return answers(f"{self.server}/readyz")
            case _:
                # No pod can be made in a namespace before the controller-manager has made its account there.
                account = f"{self.server}/api/v1/namespaces/default/serviceaccounts/default"
                return _serves(self.controllers) and answers(account)

    def etcd_command(self) -> list[str]:
        """etcd, with its data in `state/etcd`."""
        client, peer = f"http://127.0.0.1:{self.etcd}", f"http://127.0.0.1:{self.peer}"
        return [
            str(BIN / "etcd"),
            f"--data-dir={self.state}/etcd",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        ]

    def apiserver_command(self) -> list[str]:
        """The API server."""
        policy = self.state / "audit.yaml"
        policy.write_text(_AUDIT)
        return [
            str(BIN / "kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{self.etcd}",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",  # else it looks for a default route; a machine off the net has none
            f"--secure-port={self.port}",
            "--service-cluster-ip-range=127.96.0.0/16",
            # The `kubernetes` Service is then the API server itself, with no proxy and no endpoints in between.
            "--endpoint-reconciler-type=none",
            f"--tls-cert-file={pki.PKI}/apiserver.crt",
            f"--tls-private-key-file={pki.PKI}/apiserver.key",
            f"--client-ca-file={pki.PKI}/ca.crt",
            f"--service-account-key-file={pki.PKI}/sa.pub",
            f"--service-account-signing-key-file={pki.PKI}/sa.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--kubelet-preferred-address-types=Hostname",
            f"--kubelet-client-certificate={pki.PKI}/admin.crt",
            f"--kubelet-client-key={pki.PKI}/admin.key",
            f"--kubelet-certificate-authority={pki.PKI}/ca.crt",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self.audit_log}",
            "--audit-log-maxsize=100",
            "--audit-log-maxbackup=2",
        ]

    def controllers_command(self) -> list[str]:
        """The controller-manager."""
        return [
            str(BIN / "kube-controller-manager"),
            f"--kubeconfig={pki.kubeconfig('kcm')}",
            f"--master={self.server}",
            f"--service-account-private-key-file={pki.PKI}/sa.key",
            f"--root-ca-file={pki.PKI}/ca.crt",
            f"--cluster-signing-cert-file={pki.PKI}/ca.crt",
            f"--cluster-signing-key-file={pki.PKI}/ca.key",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.controllers}",
        ]


_MAIN: Final = Plane(
    state=STATE, audit_log=AUDIT_LOG, address=API, port=api_port(), etcd=23790, peer=23800, controllers=10357
)


def addresses() -> dict[str, tuple[tuple[str, int], ...]]:
    """Where each part listens."""
    return {
        "etcd": (("127.0.0.1", _MAIN.etcd), ("127.0.0.1", _MAIN.peer)),
        "apiserver": ((_MAIN.address, _MAIN.port),),
        "controller-manager": (("127.0.0.1", _MAIN.controllers),),
        "scheduler": (("127.0.0.1", _SCHEDULER),),
    }


def up() -> None:
    """Starts what does not run, and waits until it serves."""
    LOGS.mkdir(parents=True, exist_ok=True)
    processes.start("etcd", _MAIN.etcd_command())
    processes.until("etcd", lambda: _MAIN.ready("etcd"), seconds=60)
    processes.start("apiserver", _MAIN.apiserver_command())
    processes.until("apiserver", lambda: _MAIN.ready("apiserver"), seconds=90)
    processes.start("controller-manager", _MAIN.controllers_command())
    processes.start(
        "scheduler",
        [
            BIN / "kube-scheduler",
            f"--kubeconfig={pki.kubeconfig('scheduler')}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={_SCHEDULER}",
        ],
    )
    processes.until("controller-manager", lambda: _MAIN.ready("controller-manager"), seconds=60)
    processes.until("scheduler", lambda: _serves(_SCHEDULER), seconds=60)


def healthy() -> bool:
    """Whether every part runs, and the API server and etcd say that they are well."""
    return all(processes.running(part) is not None for part in PARTS) and _MAIN.ready("apiserver")


def _serves(port: int) -> bool:
    """The controllers' own health; their certificate is their own too."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return _ok(f"https://127.0.0.1:{port}/healthz", context)


def answers(url: str) -> bool:
    """Whether an address answers 200 to the administrator."""
    context = ssl.create_default_context(cafile=str(pki.PKI / "ca.crt"))
    context.load_cert_chain(pki.PKI / "admin.crt", pki.PKI / "admin.key")
    return _ok(url, context)


def _ok(url: str, context: ssl.SSLContext) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url, timeout=3) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
