"""etcd, API server, controller-manager and scheduler, every address in 127.0.0.0/8."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from typing import Final

from tests.cluster.local import pki, processes
from tests.cluster.local.places import API, AUDIT_LOG, BIN, LOGS, STATE

ETCD: Final = "http://127.0.0.1:23790"
_PEER: Final = "http://127.0.0.1:23800"
PARTS: Final = ("scheduler", "controller-manager", "apiserver", "etcd")
"""In the order in which they are ended."""

_AUDIT: Final = """apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
"""


def up() -> None:
    """Starts what does not run, and waits until it serves."""
    LOGS.mkdir(parents=True, exist_ok=True)
    (STATE / "audit.yaml").write_text(_AUDIT)
    processes.start(
        "etcd",
        [
            BIN / "etcd",
            f"--data-dir={STATE}/etcd",
            f"--listen-client-urls={ETCD}",
            f"--advertise-client-urls={ETCD}",
            f"--listen-peer-urls={_PEER}",
            f"--initial-advertise-peer-urls={_PEER}",
            f"--initial-cluster=default={_PEER}",
        ],
    )
    processes.start("apiserver", _apiserver())
    processes.until("apiserver", ready, seconds=90)
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
            "--secure-port=10357",
        ],
    )
    processes.start(
        "scheduler",
        [
            BIN / "kube-scheduler",
            f"--kubeconfig={pki.kubeconfig('scheduler')}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            "--secure-port=10359",
        ],
    )


def ready() -> bool:
    """Whether our API server says that it is ready."""
    context = ssl.create_default_context(cafile=str(pki.PKI / "ca.crt"))
    context.load_cert_chain(pki.PKI / "admin.crt", pki.PKI / "admin.key")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(f"https://{API}:443/readyz", timeout=3) as answer:
            return bool(answer.read() == b"ok")
    except (urllib.error.URLError, OSError):
        return False


def _apiserver() -> list[str]:
    return [
        str(BIN / "kube-apiserver"),
        f"--etcd-servers={ETCD}",
        f"--bind-address={API}",
        "--secure-port=443",
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
