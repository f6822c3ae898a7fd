"""Whose token is this? The API server is asked, and its answer remembered for a moment."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from valetkey.kube import paths
from valetkey.kube.api import Api, Json

CREDENTIAL: Final = "authentication.kubernetes.io/credential-id"
_REMEMBERED_FOR: Final = 10.0
"""Seconds; as long as the API server itself remembers a token."""

H = TypeVar("H")


_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750."""


class BusyError(Exception):
    """Too many tokens came at once; try again."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is asked and remembered: anybody may knock."""

    each_second: int
    """Questions that the API server is asked."""
    for_known_ones: int
    """How many of them are kept for tokens that were good before."""
    remembered: int = 1024
    """Tokens of each kind, good and bad: those that are guessed push out none that is good."""


class Reviews(Generic[H]):
    """Knows whose the tokens are that were made for one audience."""

    def __init__(
        self,
        api: Api,
        *,
        audience: str,
        judge: Callable[[Json, str], H | None],
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`judge` says whose a token is, of what the API server says of its user and the token; None where nobody's."""
        self._api, self._audience, self._judge, self._limits, self._clock = api, audience, judge, limits, clock
        self._good: OrderedDict[str, tuple[float, H]] = OrderedDict()
        """By digest: until when that is known, and whose it is."""
        self._bad: OrderedDict[str, float] = OrderedDict()
        self._asked: deque[float] = deque()
        self._under_way: dict[str, asyncio.Task[H | None]] = {}

    def known(self, token: str) -> H | None:
        """Whose it was when that was last asked, if it was good."""
        good = self._good.get(_digest(token))
        return None if good is None else good[1]

    async def holder(self, token: str) -> H | None:
        """Whose token that is; None where it is not for this audience, or nobody's who is known here.

        Raises ApiError and BusyError.
        https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/
        """
        if not _is_one(token):
            return None  # the API server would take it for another that it begins with
        digest, now = _digest(token), self._clock()
        good = self._good.get(digest)
        if good is not None and now < good[0]:
            return good[1]
        if now < self._bad.get(digest, 0.0):
            return None
        asking = self._under_way.get(digest)
        if asking is None:
            self._take_turn(now, was_good=good is not None)
            asking = self._under_way[digest] = asyncio.create_task(self._ask(token, digest, now))
            asking.add_done_callback(lambda _: self._under_way.pop(digest, None))
        return await asyncio.shield(asking)

    async def _ask(self, token: str, digest: str, now: float) -> H | None:
        body = {
            "apiVersion": paths.api_version("TokenReview"),
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self._audience]},
        }
        answer = await self._api.create(paths.collection("TokenReview"), body)
        status = answer["status"]
        ours = status.get("authenticated") is True and self._audience in (status.get("audiences") or ())
        found = self._judge(status.get("user") or {}, token) if ours else None
        self._remember(digest, now + _REMEMBERED_FOR, found)
        return found

    def _remember(self, digest: str, until: float, found: H | None) -> None:
        self._good.pop(digest, None)
        self._bad.pop(digest, None)
        if found is None:
            self._bad[digest] = until
        else:
            self._good[digest] = until, found
        for known in (self._good, self._bad):
            if len(known) > self._limits.remembered:
                known.popitem(last=False)

    def _take_turn(self, now: float, *, was_good: bool) -> None:
        while self._asked and now - self._asked[0] >= 1:
            self._asked.popleft()
        limits = self._limits
        if len(self._asked) >= (limits.each_second if was_good else limits.each_second - limits.for_known_ones):
            raise BusyError
        self._asked.append(now)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _is_one(token: str) -> bool:
    """Whether it is written in the one way that there is: what looks different is to be another token.

    The API server takes what comes before a space; and the last letter of base64 may have bits that mean nothing.
    """
    if not _TOKEN.fullmatch(token):
        return False
    parts = token.split(".")
    try:
        return len(parts) != 3 or all(_canonical(part) for part in parts)  # a JSON Web Token (RFC 7515)
    except ValueError:
        return False


def _canonical(part: str) -> bool:
    read = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    return base64.urlsafe_b64encode(read).decode().rstrip("=") == part
