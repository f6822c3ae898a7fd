"""The API server as the rest of valetkey asks it: JSON in, JSON out, one exception for whatever it refuses."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from datetime import timedelta
from typing import Any, Final, Protocol

from valetkey.errors import UnavailableError
from valetkey.reasons import Reason

Json = dict[str, Any]

NOT_LEADING: Final = "NotLeading"
"""The reason of a write that was not sent."""


class ApiError(Exception):
    """The API server refused, failed or did not answer; `status` is 0 where there was no answer."""

    def __init__(self, status: int, reason: str, message: str, retry_after: timedelta | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after

    @property
    def not_found(self) -> bool:
        """Nothing is there under that name."""
        return self.status == 404

    @property
    def already_exists(self) -> bool:
        """Something is there under that name."""
        return self.status == 409 and self.reason == "AlreadyExists"

    @property
    def conflict(self) -> bool:
        """What is there is not what the caller had read: another uid or resourceVersion."""
        return self.status == 409 and self.reason != "AlreadyExists"

    @property
    def refused(self) -> bool:
        """It will be refused again as it stands: forbidden, invalid, malformed or too large."""
        return self.status in (400, 403, 405, 413, 415, 422)

    @property
    def unauthorized(self) -> bool:
        """The caller lacks the right: for good, or until an API server that has just started has read its roles."""
        return self.status == 403 and 'User "' in self.message and '" cannot ' in self.message

    @property
    def away(self) -> bool:
        """The API server was not there, or nobody before it could reach it."""
        return self.status in (0, 502, 503, 504) and self.reason != NOT_LEADING

    @property
    def denied_by_policy(self) -> bool:
        """An admission policy refused it, rather than RBAC or the schema."""
        return self.status in (403, 422) and "ValidatingAdmissionPolicy" in self.message


class RewoundError(Exception):
    """The API server's store is older than it was: a snapshot was restored, and nothing that was read before holds."""


async def namespace_goes(api: Api, name: str) -> bool:
    """Whether a namespace is gone or on its way, and the operator's rights in it with it; raises ApiError."""
    try:
        body = await api.get(f"/api/v1/namespaces/{name}")
    except ApiError as error:
        if error.not_found:
            return True
        raise
    return "deletionTimestamp" in body["metadata"]


def unavailable(error: ApiError, reason: Reason) -> UnavailableError:
    """The API server's failure, in public words; its own are chained, for the operator's log."""
    said = f"answered {error.status} {error.reason}" if error.status else "did not answer"
    return UnavailableError(reason, f"the API server {said}; it is tried again", after=error.retry_after)


class Api(Protocol):
    """What the rest of valetkey asks of the API server; every method raises ApiError."""

    async def get(self, path: str) -> Json:
        """Reads one object, live."""
        ...

    async def create(self, path: str, body: Json) -> Json:
        """Creates an object (POST)."""
        ...

    async def replace(self, path: str, body: Json) -> Json:
        """Replaces an object (PUT); unconditional without a resourceVersion."""
        ...

    async def patch(self, path: str, body: Json) -> Json:
        """Merges into an object (RFC 7396)."""
        ...

    async def delete(self, path: str, *, uid: str) -> Json:
        """Deletes the object of that uid; one that is gone already is no error, one of another uid is a conflict.

        Gives the object where a finalizer keeps it, else a Status.
        """
        ...

    def list(self, path: str, *, metadata_only: bool = False, selector: str = "") -> AsyncIterator[Json]:
        """Every object of a collection, page by page, as of one moment of each page's read."""
        ...


class WatchApi(Api, Protocol):
    """The same, and one object's changes as they come."""

    def watch(self, path: str, *, name: str, version: str | None = None) -> AsyncGenerator[Json, None]:
        """What becomes of one object of a collection, from what it is or from after a version; ends after a while."""
        ...
