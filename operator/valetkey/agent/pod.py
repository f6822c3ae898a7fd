"""Who are we, and where is the API server? As the pod's own ServiceAccount mount and environment say."""

from __future__ import annotations

import base64
import binascii
import json
import os
import ssl
from pathlib import Path
from typing import Any, Final, NamedTuple

from valetkey.agent.errors import NotInAPod

Json = dict[str, Any]
ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Pod(NamedTuple):
    """The pod that this process runs in."""

    account: Path
    server: str
    namespace: str
    name: str
    uid: str

    def token(self) -> str:
        """Its token as it is now: the kubelet puts a new one there before the old one expires; raises NotInAPod."""
        return _read(self.account / "token").strip()

    def context(self) -> ssl.SSLContext:
        """Trusts the API server's CA and nobody else; raises NotInAPod."""
        try:
            context = ssl.create_default_context(cafile=str(self.account / "ca.crt"))
        except (OSError, ssl.SSLError) as error:
            raise NotInAPod(f"{self.account}/ca.crt is not a file of certificates: {error}") from error
        # From Python 3.13 on it would refuse the CA of many a cluster, which has no key identifier.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


def find(account: Path | None = None) -> Pod:
    """The pod that this process runs in; raises NotInAPod and says what is missing."""
    account = account or Path(os.environ.get("VALETKEY_ACCOUNT_DIRECTORY") or ACCOUNT)
    server = _server()
    bound = claims(_read(account / "token").strip())["kubernetes.io"]
    pod = bound["pod"]
    return Pod(account=account, server=server, namespace=bound["namespace"], name=pod["name"], uid=pod["uid"])


def claims(token: str) -> Json:
    """What a token says of its pod, unverified: the API server verifies it; raises NotInAPod."""
    try:
        part = token.split(".")[1]
        found: Json = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        bound = found["kubernetes.io"]
        _ = found["sub"], found["jti"], bound["namespace"], bound["serviceaccount"]["name"]
        _ = bound["pod"]["name"], bound["pod"]["uid"], bound["node"]["name"]
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error) as error:
        raise NotInAPod(
            "the token is not one that is bound to a pod and its node: mount the pod's ServiceAccount "
            f"(automountServiceAccountToken), on Kubernetes 1.32 or newer; missing: {error}"
        ) from error
    return found


def requester(token: str) -> Json:
    """`spec.requester` as the API server will hold it against the token that is sent."""
    said = claims(token)
    bound = said["kubernetes.io"]
    return {
        "username": said["sub"],
        "serviceAccount": bound["serviceaccount"]["name"],
        "podName": bound["pod"]["name"],
        "podUID": bound["pod"]["uid"],
        "nodeName": bound["node"]["name"],
        "credentialID": f"JTI={said['jti']}",
        "via": "API",
    }


def _server() -> str:
    try:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    except KeyError as error:
        raise NotInAPod(f"the environment has no {error.args[0]}: this is not a pod of a cluster") from None
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError) as error:
        raise NotInAPod(
            f"{path} cannot be read ({error}): mount the pod's ServiceAccount (automountServiceAccountToken)"
        ) from error
