"""Whose token is this? The API server is asked, and its answer remembered for a moment."""

from __future__ import annotations

import base64
import hashlib
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import orjson

from valetkey.kube import paths
from valetkey.kube.api import Api, Json

AUDIENCE: Final = "valetkey-log"
AUDITOR: Final = "valetkey-auditor"
"""The account in the operator's namespace whose tokens read the log."""
HEADER: Final = "Valetkey-Token"
"""Where the token is: as a proxy the API server takes Authorization away."""
LONGEST: Final = timedelta(minutes=15)
"""That a token may live for: who may make one no more is soon out."""
_REMEMBERED_FOR: Final = 10.0
"""Seconds; as long as the API server itself remembers a token."""
_REMEMBERED: Final = 1024
_EACH_SECOND: Final = 10
"""Questions that the API server is asked: anybody may knock."""
_FOR_KNOWN_ONES: Final = 3
"""How many of them are kept for tokens that were good before."""


class BusyError(Exception):
    """Too many tokens came at once; try again."""


class Reviews:
    """Knows the tokens of one account that were made for reading the log."""

    def __init__(self, api: Api, *, username: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._api, self._username, self._clock = api, username, clock
        self._known: OrderedDict[str, tuple[float, str | None]] = OrderedDict()
        """By digest: until when that is known, and the credential's id where it is good."""
        self._asked: deque[float] = deque()

    async def credential_id(self, token: str) -> str | None:
        """The id of a short-lived token of that account and this audience; None for any other.

        Raises ApiError and BusyError.
        https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/
        """
        digest, now = hashlib.sha256(token.encode()).hexdigest(), self._clock()
        until, known = self._known.get(digest, (0.0, None))
        if now < until:
            return known
        self._take_turn(now, was_good=known is not None)
        body = {
            "apiVersion": paths.api_version("TokenReview"),
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [AUDIENCE]},
        }
        answer = await self._api.create(paths.collection("TokenReview"), body)
        found = self._judge(answer["status"], token)
        self._known[digest] = now + _REMEMBERED_FOR, found
        self._known.move_to_end(digest)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return found

    def _take_turn(self, now: float, *, was_good: bool) -> None:
        while self._asked and now - self._asked[0] >= 1:
            self._asked.popleft()
        if len(self._asked) >= (_EACH_SECOND if was_good else _EACH_SECOND - _FOR_KNOWN_ONES):
            raise BusyError
        self._asked.append(now)

    def _judge(self, status: Json, token: str) -> str | None:
        user = status.get("user") or {}
        if status.get("authenticated") is not True or AUDIENCE not in (status.get("audiences") or ()):
            return None
        if user.get("username") != self._username or not _short_lived(token):
            return None
        return " ".join((user.get("extra") or {}).get("authentication.kubernetes.io/credential-id", ()))


def _short_lived(token: str) -> bool:
    """Whether a token that the API server vouches for says of itself that it lives for no longer than it may."""
    try:
        payload = token.split(".")[1]
        claims = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return timedelta(seconds=claims["exp"] - claims["iat"]) <= LONGEST
    except (IndexError, KeyError, TypeError, ValueError, OverflowError):
        return False
