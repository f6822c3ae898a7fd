"""The door for agents that cannot reach the API server, or may not use it: HTTPS and JSON, by their pods' tokens.

`POST /v1/accessrequests` asks, `GET /v1/accessrequests/NAME` looks again, `PATCH` there says how it ended or that it
goes on. It decides nothing and grants nothing: it makes the AccessRequest that the pod would have made, with
`requester.via: Door`, and shows that request's status, in which a credential is sealed to the agent's key.

In the words of AuthZEN's Access Request and Approval Profile (https://openid.net/wg/authzen/): a denial that is
requestable is 202 with a handle (`Location`), while people are asked, or 403 with what would pass (`error.allowed`,
`retryAfter`, `contact`); each look at the handle tells what was evaluated last, and policy is evaluated again at
whatever changes; an approval by itself never grants.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from valetkey.door import Door, Terms
from valetkey.kube.api import ApiError, Json
from valetkey.messages import Answer, RefusedError, Request
from valetkey.serve import answers, bodies
from valetkey.serve.alive import stay_alive
from valetkey.serve.answers import PATH, away, no
from valetkey.serve.bodies import Asked, Change, Query
from valetkey.serve.certificate import Certificate
from valetkey.serve.pace import Pace, TooManyError
from valetkey.serve.pods import AUDIENCE, AskingPod
from valetkey.serve.requests import GoneError, Requests, TakenError
from valetkey.serve.reviews import BusyError, Reviews

CONNECTIONS: Final = 384
"""Each takes half a megabyte with that to the API server, so that all of them fit into the chart's memory."""
TERMS: Final = Terms(
    methods=("GET", "POST", "PATCH"),
    body=64 << 10,
    connections=CONNECTIONS,
    idle=timedelta(seconds=75),
    refused=answers.refused,
)
_ONE: Final = re.compile(rf"{PATH}/({bodies.NAME})")
_NEEDED: Final = (
    f"a token of the pod's own for audience {AUDIENCE} is needed: mount a projected serviceAccountToken volume with "
    "that audience, and send what is in it as `Authorization: Bearer`"
)

_logger = logging.getLogger(__name__)


class Agents:
    """Answers pods of some namespaces."""

    def __init__(
        self, reviews: Reviews[AskingPod], requests: Requests, namespaces: Collection[str], pace: Pace | None = None
    ) -> None:
        self._reviews, self._requests, self._namespaces = reviews, requests, frozenset(namespaces)
        self._pace = pace or Pace()

    async def answer(self, request: Request) -> Answer:
        """What becomes of one call; raises OSError and EOFError where nobody is there any more to hear it."""
        try:
            pod = await self._pod(request)
            return pod if isinstance(pod, Answer) else await self._answered(pod, request)
        except RefusedError as error:
            return answers.refused(error)
        except TooManyError as error:
            return no("429 Too Many Requests", f"{error}; try again", f"Retry-After: {error.after}")
        except GoneError:
            return no("404 Not Found", "this pod has no such AccessRequest that was made by the door")
        except TakenError:
            return no("409 Conflict", "there is another AccessRequest of that name; choose another name")
        except ApiError as error:
            if not error.refused:
                _logger.warning("a call was not carried out: the API server said %s %s", error.status, error.reason)
            return answers.of_api(error)
        except (OSError, EOFError):
            raise
        except Exception:
            _logger.exception("a call could not be answered; this is a bug")
            return no("500 Internal Server Error", "this is a bug; what was asked may have been done")

    async def _pod(self, request: Request) -> AskingPod | Answer:
        """The pod that calls, by its token, as often as it may."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else ""
        known = self._reviews.known(token)
        if known is not None:
            self._pace.call(known.uid)  # before the API server is asked for it again
        try:
            pod = await self._reviews.holder(token) if token else None
        except BusyError:
            busy = no("429 Too Many Requests", "too many tokens at once; try again", "Retry-After: 1")
            return replace(busy, last=True)
        except ApiError as error:
            # Nothing else of it: what was refused was a token.
            _logger.warning("a token could not be reviewed: the API server said %s %s", error.status, error.reason)
            return away("the API server was not there to say whose token it is; try again")
        if pod is None:
            # Whoever has no token has no connection for longer either.
            return replace(no("401 Unauthorized", _NEEDED, "WWW-Authenticate: Bearer"), last=True)
        if pod.namespace not in self._namespaces:
            why = f"no agents of namespace {pod.namespace} are served; its platform team adds it to agentNamespaces"
            return no("403 Forbidden", why, reason="NamespaceNotServed")
        if known is None:
            self._pace.call(pod.uid)
        return pod

    async def _answered(self, pod: AskingPod, request: Request) -> Answer:
        if request.path == PATH:
            _demand(request, "POST")
            return await self._ask(pod, request)
        one = _ONE.fullmatch(request.path)
        if one is None:
            raise RefusedError("404 Not Found", f"there is {PATH}, and {PATH}/NAME")
        _demand(request, "GET", "PATCH")
        if request.method == "GET":
            return await self._look(pod, one[1], Query.of(request.query, "wait", "after"))
        Query.of(request.query)
        change = bodies.read(Change, await request.body())
        return answers.shown(await self._requests.change(pod, one[1], change), status="200 OK")

    async def _ask(self, pod: AskingPod, request: Request) -> Answer:
        query = Query.of(request.query, "wait")
        asked = bodies.read(Asked, await request.body())
        with ExitStack() as waits:
            try:
                waits.enter_context(self._waiting(pod, query))
            except TooManyError:
                query = replace(query, wait=0.0)  # it is made, and can be looked at
            made = await self._requests.make(pod, asked)
            _logger.info("%s/%s asks: %s", pod.namespace, pod.name, made["metadata"]["name"])
            return await self._followed(pod, made, answers.settled, query)

    async def _look(self, pod: AskingPod, name: str, query: Query) -> Answer:
        def changed(body: Json) -> bool:
            return bool(body["metadata"]["resourceVersion"] != query.after)

        with self._waiting(pod, query):
            found = await self._requests.find(pod, name)
            return await self._followed(pod, found, answers.settled if query.after is None else changed, query)

    def _waiting(self, pod: AskingPod, query: Query) -> AbstractContextManager[None]:
        return self._pace.wait(pod.uid) if query.wait else nullcontext()

    async def _followed(self, pod: AskingPod, found: Json, enough: Callable[[Json], bool], query: Query) -> Answer:
        return answers.shown(await self._requests.follow(pod, found, enough, query.wait))


def _demand(request: Request, *methods: str) -> None:
    if request.method not in methods:
        allowed = ", ".join(methods)
        raise RefusedError("405 Method Not Allowed", f"{allowed} is what there is for this path", f"Allow: {allowed}")


async def serve(agents: Agents, host: str, port: int, *, tls: Path, run: Path) -> None:
    """Serves for ever, with the certificate of one directory; in another it shows that it lives."""
    certificate = Certificate(tls, setting="door.tlsSecret")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(stay_alive(run))
        await certificate.wait_for_one()
        tasks.create_task(certificate.keep_looking())
        door = Door(agents.answer, TERMS)
        tasks.create_task(door.serve(host, port, setting="door.port", tls=certificate.context))
