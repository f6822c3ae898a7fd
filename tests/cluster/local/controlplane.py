"""etcd, API server, controller-manager and scheduler, every address in 127.0.0.0/8."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from typing import Final

from tests.cluster.local import pki, processes
from tests.cluster.local.places import API, AUDIT_LOG, BIN, LOGS, STATE, api_port

_ETCD: Final = 23790
_PEER: Final = 23800
_CONTROLLERS: Final = 10357
_SCHEDULER: Final = 10359
PARTS: Final = ("scheduler", "controller-manager", "apiserver", "etcd")
"""In the order in which they are ended."""

_AUDIT: Final = """apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
"""


def addresses() -> dict[str, tuple[tuple[str, int], ...]]:
    """Where each part listens."""
    return {
        "etcd": (("127.0.0.1", _ETCD), ("127.0.0.1", _PEER)),
        "apiserver": ((API, api_port()),),
        "controller-manager": (("127.0.0.1", _CONTROLLERS),),
        "scheduler": (("127.0.0.1", _SCHEDULER),),
    }


def up() -> None:
    """Starts what does not run, and waits until it serves."""
    LOGS.mkdir(parents=True, exist_ok=True)
    (STATE / "audit.yaml").write_text(_AUDIT)
    client, peer = f"http://127.0.0.1:{_ETCD}", f"http://127.0.0.1:{_PEER}"
    processes.start(
        "etcd",
        [
            BIN / "etcd",
            f"--data-dir={STATE}/etcd",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        ],
    )
    processes.until("etcd", lambda: _answers(f"{client}/health"), seconds=60)
    processes.start("apiserver", _apiserver(client))
    processes.until("apiserver", lambda: _answers(f"{_api()}/readyz"), seconds=90)
    processes.start(
        "controller-manager",
        [
            BIN / "kube-controller-manager",
            f"--kubeconfig={pki.kubeconfig('kcm')}",
            f"--service-account-private-key-file={pki.PKI}/sa.key",
            f"--root-ca-file={pki.PKI}/ca.crt",
            f"--cluster-signing-cert-file={pki.PKI}/ca.crt",
            f"--cluster-signing-key-file={pki.PKI}/ca.key",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={_CONTROLLERS}",
        ],
    )
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
    # No pod can be made in a namespace before the controller-manager has made its account there.
    account = f"{_api()}/api/v1/namespaces/default/serviceaccounts/default"
    processes.until("controller-manager", lambda: _serves(_CONTROLLERS) and _answers(account), seconds=60)
    processes.until("scheduler", lambda: _serves(_SCHEDULER), seconds=60)


def healthy() -> bool:
    """Whether every part runs, and the API server and etcd say that they are well."""
    return all(processes.running(part) is not None for part in PARTS) and _answers(f"{_api()}/readyz")


def _api() -> str:
    return f"https://{API}:{api_port()}"


def _serves(port: int) -> bool:
    """The controllers' own health; their certificate is their own too."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return _ok(f"https://127.0.0.1:{port}/healthz", context)


def _answers(url: str) -> bool:
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


def _apiserver(etcd: str) -> list[str]:
    return [
        str(BIN / "kube-apiserver"),
        f"--etcd-servers={etcd}",
        f"--bind-address={API}",
        f"--advertise-address={API}",  # else it looks for a default route, which a machine off the net has not
        f"--secure-port={api_port()}",
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
        f"--audit-policy-file={STATE}/audit.yaml",
        f"--audit-log-path={AUDIT_LOG}",
        "--audit-log-maxsize=100",
        "--audit-log-maxbackup=2",
    ]
