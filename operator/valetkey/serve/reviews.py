"""Whose token is this? The API server is asked, and its answer remembered for a moment."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from valetkey.kube import paths
from valetkey.kube.api import Api

AUDIENCE: Final = "valetkey-log"
_REMEMBERED_FOR: Final = 10.0
"""Seconds; as long as the API server itself remembers a token."""
_REMEMBERED: Final = 64
_EACH_SECOND: Final = 10
"""Questions that the API server is asked: anybody may knock."""


class BusyError(Exception):
    """Too many tokens came at once; try again."""


class Reviews:
    """Knows the tokens of one account that were made for reading the log."""

    def __init__(self, api: Api, *, username: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._api, self._username, self._clock = api, username, clock
        self._known: OrderedDict[str, tuple[float, str]] = OrderedDict()
        """By digest: until when, and the credential's id."""
        self._asked: list[float] = []

    async def credential_id(self, token: str) -> str | None:
        """The id of a token of that account and this audience; None for any other. Raises ApiError and BusyError.

        https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/
        """
        digest, now = hashlib.sha256(token.encode()).hexdigest(), self._clock()
        until, known = self._known.get(digest, (0.0, ""))
        if now < until:
            return known
        self._asked = [at for at in self._asked if now - at < 1]
        if len(self._asked) >= _EACH_SECOND:
            raise BusyError
        self._asked.append(now)
        body = {
            "apiVersion": paths.api_version("TokenReview"),
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [AUDIENCE]},
        }
        answer = (await self._api.create(paths.collection("TokenReview"), body))["status"]
        user = answer.get("user") or {}
        if answer.get("authenticated") is not True or AUDIENCE not in (answer.get("audiences") or ()):
            return None
        if user.get("username") != self._username:
            return None
        found = " ".join((user.get("extra") or {}).get("authentication.kubernetes.io/credential-id", ()))
        self._known[digest] = now + _REMEMBERED_FOR, found
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return found
