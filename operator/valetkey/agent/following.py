"""What becomes of one request? Every version of it, whatever breaks in between."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from valetkey.agent.api import Api, ApiError, Pauses

Json = dict[str, Any]


class Following:
    """Follows one request from a version that is known; it can be taken up again where it was left."""

    def __init__(self, api: Api, collection: str, request: Json) -> None:
        self._api, self._collection, self._newest = api, collection, request
        self._name, self._uid = request["metadata"]["name"], request["metadata"]["uid"]
        self.trouble = ""
        """Why nothing has come since; empty where all is well."""

    async def versions(self) -> AsyncGenerator[Json | None, None]:
        """The version that is known and all that follow; None, at last, if it is gone. Raises ApiError if refused."""
        yield self._newest
        version = self._newest["metadata"]["resourceVersion"]
        pauses = Pauses()
        while True:
            wait = 0.0
            try:
                if version is None:
                    found = await self._api.get(f"{self._collection}/{self._name}")
                    version = found["metadata"]["resourceVersion"]
                    yield self._own(found)
                async with aclosing(self._api.watch(self._collection, name=self._name, version=version)) as events:
                    async for event in events:
                        pauses.reset()
                        self.trouble = ""
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] == "DELETED":
                            yield None
                            return
                        if event["type"] != "BOOKMARK":
                            yield self._own(event["object"])
            except ApiError as error:
                self.trouble, wait = str(error), error.after
                if error.status == 404:
                    yield None
                    return
                if error.status == 410:  # so long away that the server has forgotten what came after
                    version = None
                elif not error.passing:
                    raise
            await pauses.wait(wait)

    def _own(self, found: Json) -> Json | None:
        """Another of the same name is not this one."""
        if found["metadata"]["uid"] != self._uid:
            return None
        self._newest = found
        return found
