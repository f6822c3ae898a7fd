"""Keys, certificates and kubeconfigs of the local cluster."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.cluster.local.places import ADMIN, API, NODE, STATE, LocalClusterError, api_port

PKI: Final = STATE / "pki"
_DAYS: Final = "3650"
_NAMES: Final = (
    f"IP:127.0.0.1,IP:{API},DNS:localhost,DNS:{NODE},DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
)
_CLIENTS: Final = {
    "admin": "/O=system:masters/CN=admin",
    "kcm": "/CN=system:kube-controller-manager",
    "scheduler": "/CN=system:kube-scheduler",
    "kubelet": f"/O=system:nodes/CN=system:node:{NODE}",
}


def make() -> None:
    """Makes everything, whole or not at all, unless it is there."""
    if not PKI.exists():
        draft = STATE / "pki.draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True, mode=0o700)
        authority(draft)
        for name, subject in {"apiserver": "/CN=kube-apiserver", **_CLIENTS}.items():
            certificate(draft, name, subject)
        draft.rename(PKI)
    for name in _CLIENTS:
        path, content = kubeconfig(name), _kubeconfig(name)
        if not path.exists() or path.read_text() != content:
            path.touch(mode=0o600)
            path.write_text(content)


def newer_than(folder: Path) -> bool:
    """Whether a folder is of the time before these keys: nothing in it can be trusted with them."""
    return not PKI.exists() or max(file.stat().st_mtime for file in PKI.iterdir()) > folder.stat().st_mtime


def kubeconfig(name: str) -> Path:
    """The kubeconfig of one of the cluster's users."""
    return ADMIN.with_name(f"{name}.kubeconfig")


def authority(folder: Path) -> None:
    """Makes a CA in a folder."""
    _key(folder, "ca")
    _openssl(
        folder, "req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=valetkey-local", "-days", _DAYS,
        "-out", "ca.crt",
    )  # fmt: skip
    _key(folder, "sa")
    _openssl(folder, "ec", "-in", "sa.key", "-pubout", "-out", "sa.pub")
    (folder / "names").write_text(f"subjectAltName={_NAMES}")


def certificate(folder: Path, name: str, subject: str) -> None:
    """Makes a key, and a certificate of the folder's CA for this machine."""
    _key(folder, name)
    _openssl(folder, "req", "-new", "-key", f"{name}.key", "-subj", subject, "-out", f"{name}.csr")
    _openssl(
        folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
        "-days", _DAYS, "-out", f"{name}.crt", "-extfile", "names",
    )  # fmt: skip


def _key(folder: Path, name: str) -> None:
    _openssl(folder, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")


def _openssl(folder: Path, *arguments: str) -> None:
    try:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
    except FileNotFoundError:
        raise LocalClusterError("openssl is needed to make the cluster's keys: install it") from None
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace")[-500:]
        raise LocalClusterError(f"openssl {arguments[0]} failed: {reason}") from None


def _kubeconfig(name: str) -> str:
    return f"""apiVersion: v1
kind: Config
clusters: [{{name: local, cluster: {{server: "https://{API}:{api_port()}", certificate-authority: {PKI}/ca.crt}}}}]
users: [{{name: {name}, user: {{client-certificate: {PKI}/{name}.crt, client-key: {PKI}/{name}.key}}}}]
contexts: [{{name: local, context: {{cluster: local, user: {name}}}}}]
current-context: local
"""
