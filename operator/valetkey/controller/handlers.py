"""Handlers: kopf's events, each handed on to the operator; with __main__ the only place that knows kopf."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import kopf
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory

from valetkey.controller.operator import Operator
from valetkey.controller.relist import AGENTS
from valetkey.kinds.base import GROUP, VERSION
from valetkey.kube import session
from valetkey.kube.client import PAGE, Client
from valetkey.kube.clock import Clock
from valetkey.kube.leader import Leadership
from valetkey.settings import Settings

_ADMISSION = "admissionregistration.k8s.io"


class ForEver:
    """Pauses in seconds between tries of a watch; after the last one kopf would give it up for good."""

    def __iter__(self) -> Iterator[float]:
        """Ever longer ones, then the same without end."""
        return itertools.chain((0.05, 0.1, 0.25, 0.5, 1, 2), itertools.repeat(5.0))


class NoDiffs(kopf.DiffBaseStorage):
    """What kopf would compare: nothing, for no handler here asks what has changed, and the copies cost more than it."""

    def build(self, *, body: kopf.Body, extra_fields: object = None) -> kopf.BodyEssence:
        """Nothing of an object."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> None:
        """Nothing was stored."""

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Stores nothing."""


class NoMemories(ResourceMemories):
    """What kopf would remember of each object, a KB of it: nothing, for no handler here has a state of its own."""

    async def recall(self, raw_body: kopf.RawBody, **options: Any) -> ResourceMemory:
        """A memory that is forgotten when its event is over."""
        return await super().recall(raw_body, **(options | {"ephemeral": True}))


def registry(settings: Settings, *, instance: str, uid: str, stop: asyncio.Event) -> kopf.OperatorRegistry:
    """All handlers of one operator; `instance` and `uid` are its pod's."""
    handlers = kopf.OperatorRegistry()
    serving: list[Operator] = []
    stack = AsyncExitStack()
    account = settings.account_directory

    @kopf.on.login(registry=handlers)
    async def login(memo: kopf.Memo, **_: Any) -> kopf.AiohttpSession:
        memo["session"] = session.open_session(account)
        return kopf.AiohttpSession(server=session.server(), aiohttp_session=memo["session"])

    @kopf.on.startup(registry=handlers)
    async def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.scanning.disabled = True
        settings.peering.standalone = True
        # kopf strips its finalizer wherever it finds it; this one can be on nothing, for it is no valid name.
        settings.persistence.finalizer = "none of valetkey's"
        settings.persistence.diffbase_storage = NoDiffs()
        settings.queueing.idle_timeout = 0.05
        settings.watching.chunk_size = PAGE
        settings.watching.label_selectors["", "v1", "pods"] = AGENTS
        settings.networking.error_backoffs = ForEver()
        settings.networking.connect_timeout = 3
        settings.networking.request_timeout = 10

    # Where this fails the process ends and is started anew; kopf would wait for a minute with what is half done.
    @kopf.on.startup(registry=handlers, errors=kopf.ErrorsMode.PERMANENT)
    async def serve(**_: Any) -> None:
        own = await stack.enter_async_context(session.open_session(account))
        # Renewals never queue for a connection behind the work that they allow.
        leading = await stack.enter_async_context(session.open_session(account))
        clock = Clock()
        leadership = Leadership(
            Client(leading, session.server(), clock=clock),
            namespace=settings.namespace,
            name=settings.leader,
            identity=f"{instance}_{uid}",
            now=clock,
        )
        operator = Operator(
            Client(own, session.server(), clock=clock, may_write=lambda: leadership.held),
            settings,
            leadership,
            clock,
            instance=instance,
            server=session.server(),
            certificate_authority=session.certificate_authority(account),
        )
        stack.push_async_callback(operator.stop)
        await operator.start(stop.set)
        serving.append(operator)

    @kopf.on.cleanup(registry=handlers)
    async def end(**_: Any) -> None:
        await stack.aclose()

    @kopf.on.event(GROUP, VERSION, "accessrequests", registry=handlers)
    async def on_request(event: kopf.RawEvent, **_: Any) -> None:
        serving[0].watched.on_request(dict(event["object"]), deleted=event["type"] == "DELETED")

    @kopf.on.event(GROUP, VERSION, "taskgrants", registry=handlers)
    async def on_grant(event: kopf.RawEvent, **_: Any) -> None:
        serving[0].watched.on_grant(dict(event["object"]), deleted=event["type"] == "DELETED")

    @kopf.on.event(GROUP, VERSION, "agentpolicies", registry=handlers)
    async def on_policy(event: kopf.RawEvent, **_: Any) -> None:
        serving[0].watched.on_policy(dict(event["object"]), deleted=event["type"] == "DELETED")

    @kopf.on.event(GROUP, VERSION, "accessapprovals", registry=handlers)
    async def on_approval(event: kopf.RawEvent, **_: Any) -> None:
        serving[0].watched.on_approval(dict(event["object"]), deleted=event["type"] == "DELETED")

    @kopf.on.event("", "v1", "pods", registry=handlers)
    async def on_pod(event: kopf.RawEvent, **_: Any) -> None:
        serving[0].watched.on_pod(dict(event["object"]), deleted=event["type"] == "DELETED")

    @kopf.on.event("", "v1", "namespaces", registry=handlers)
    async def on_namespace(event: kopf.RawEvent, **_: Any) -> None:
        serving[0].watched.on_namespace(dict(event["object"]), deleted=event["type"] == "DELETED")

    @kopf.on.event(_ADMISSION, "v1", "validatingadmissionpolicies", registry=handlers)
    @kopf.on.event(_ADMISSION, "v1", "validatingadmissionpolicybindings", registry=handlers)
    async def on_guard(event: kopf.RawEvent, **_: Any) -> None:
        serving[0].watched.on_guard(dict(event["object"]), deleted=event["type"] == "DELETED")

    return handlers


async def run(settings: Settings, *, instance: str, uid: str) -> None:
    """Runs the operator until it is told to stop."""
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    stop = asyncio.Event()
    await kopf.operator(
        registry=registry(settings, instance=instance, uid=uid, stop=stop),
        namespaces=settings.agent_namespaces,
        memories=NoMemories(),
        standalone=True,
        stop_flag=stop,
    )
