"""Which pod asks? The one that a token for the audience `valetkey` is bound to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from valetkey.kinds.accessrequest import Requester, Subject
from valetkey.kube.api import Api, Json
from valetkey.serve.reviews import CREDENTIAL, Limits, Reviews

AUDIENCE: Final = "valetkey"
LIMITS: Final = Limits(each_second=100, for_known_ones=30, remembered=4096)
_ACCOUNT: Final = "system:serviceaccount:"
_PROOFS: Final = tuple(f"authentication.kubernetes.io/{name}" for name in ("pod-name", "pod-uid", "node-name"))


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingPod:
    """A pod as the API server has authenticated it by its token."""

    namespace: str
    service_account: str
    name: str
    uid: str
    node: str
    credential_id: str

    @property
    def requester(self) -> Requester:
        """As the requests that the door makes for it say who asks."""
        return Requester(
            username=f"{_ACCOUNT}{self.namespace}:{self.service_account}",
            service_account=self.service_account,
            pod_name=self.name,
            pod_uid=self.uid,
            node_name=self.node,
            credential_id=self.credential_id,
            via="Door",
        )

    @property
    def subject(self) -> Subject:
        """As they say who receives: nobody asks for another pod by the door."""
        return Subject(pod_name=self.name, pod_uid=self.uid)


def pods(api: Api, *, clock: Callable[[], float] = time.monotonic) -> Reviews[AskingPod]:
    """Knows the pods whose tokens are shown to the door."""
    return Reviews(api, audience=AUDIENCE, judge=_judge, limits=LIMITS, clock=clock)


def _judge(user: Json, _: str) -> AskingPod | None:
    extra, (namespace, _, account) = user.get("extra") or {}, _account(user).partition(":")
    proofs: list[list[str]] = [extra.get(proof) or [] for proof in (*_PROOFS, CREDENTIAL)]
    if not namespace or not account or any(len(values) != 1 for values in proofs):
        return None
    (name,), (uid,), (node,), (credential,) = proofs
    return AskingPod(
        namespace=namespace, service_account=account, name=name, uid=uid, node=node, credential_id=credential
    )


def _account(user: Json) -> str:
    username = str(user.get("username", ""))
    return username.removeprefix(_ACCOUNT) if username.startswith(_ACCOUNT) else ""
