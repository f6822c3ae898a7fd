"""Keys, certificates and kubeconfigs of the local cluster."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.cluster.local.places import ADMIN, API, NODE, STATE

PKI: Final = STATE / "pki"
_NAMES: Final = (
    f"IP:127.0.0.1,IP:{API},DNS:localhost,DNS:{NODE},DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
)
_CLIENTS: Final = {
    "admin": "/O=system:masters/CN=admin",
    "kcm": "/CN=system:kube-controller-manager",
    "scheduler": "/CN=system:kube-scheduler",
    "kubelet": f"/O=system:nodes/CN=system:node:{NODE}",
}


def make() -> bool:
    """Makes everything, whole or not at all; gives whether it was made now."""
    if PKI.exists():
        return False
    draft = STATE / "pki.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    _key(draft, "ca")
    _openssl(
        draft,
        "req",
        "-x509",
        "-new",
        "-key",
        "ca.key",
        "-subj",
        "/CN=valetkey-local",
        "-days",
        "3650",
        "-out",
        "ca.crt",
    )
    _key(draft, "sa")
    _openssl(draft, "ec", "-in", "sa.key", "-pubout", "-out", "sa.pub")
    (draft / "names").write_text(f"subjectAltName={_NAMES}")
    for name, subject in {"apiserver": "/CN=kube-apiserver", **_CLIENTS}.items():
        _certificate(draft, name, subject)
    draft.rename(PKI)
    for name in _CLIENTS:
        kubeconfig(name).write_text(_kubeconfig(name))
        kubeconfig(name).chmod(0o600)
    return True


def kubeconfig(name: str) -> Path:
    """The kubeconfig of one of the cluster's users."""
    return ADMIN.with_name(f"{name}.kubeconfig")


def _certificate(folder: Path, name: str, subject: str) -> None:
    _key(folder, name)
    _openssl(folder, "req", "-new", "-key", f"{name}.key", "-subj", subject, "-out", f"{name}.csr")
    _openssl(
        folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
        "-days", "3650", "-out", f"{name}.crt", "-extfile", "names",
    )  # fmt: skip


def _key(folder: Path, name: str) -> None:
    _openssl(folder, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def _kubeconfig(name: str) -> str:
    return f"""apiVersion: v1
kind: Config
clusters: [{{name: local, cluster: {{server: "https://{API}:443", certificate-authority: {PKI}/ca.crt}}}}]
users: [{{name: {name}, user: {{client-certificate: {PKI}/{name}.crt, client-key: {PKI}/{name}.key}}}}]
contexts: [{{name: local, context: {{cluster: local, user: {name}}}}}]
current-context: local
"""
