"""Who reads the log? Whoever holds a short-lived token of the auditor's account that was made for it."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import orjson

from valetkey.kube.api import Api, Json
from valetkey.serve.reviews import CREDENTIAL, Limits, Reviews

AUDIENCE: Final = "valetkey-log"
AUDITOR: Final = "valetkey-auditor"
"""The account in the operator's namespace whose tokens read the log."""
HEADER: Final = "Valetkey-Token"
"""Where the token is: as a proxy the API server takes Authorization away."""
LONGEST: Final = timedelta(minutes=15)
"""That a token may live for: who may make one no more is soon out."""
LIMITS: Final = Limits(each_second=10, for_known_ones=3)


def auditors(api: Api, namespace: str, *, clock: Callable[[], float] = time.monotonic) -> Reviews[str]:
    """Knows auditors by the id of their credential; `namespace` is the operator's."""
    username = f"system:serviceaccount:{namespace}:{AUDITOR}"

    def judge(user: Json, token: str) -> str | None:
        if user.get("username") != username or not _short_lived(token):
            return None
        return " ".join((user.get("extra") or {}).get(CREDENTIAL, ()))

    return Reviews(api, audience=AUDIENCE, judge=judge, limits=LIMITS, clock=clock)


def _short_lived(token: str) -> bool:
    """Whether a token that the API server vouches for says of itself that it lives for no longer than it may."""
    try:
        payload = token.split(".")[1]
        claims = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return timedelta(seconds=claims["exp"] - claims["iat"]) <= LONGEST
    except (IndexError, KeyError, TypeError, ValueError, OverflowError):
        return False
