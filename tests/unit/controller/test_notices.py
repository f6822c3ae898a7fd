"""Notices over a real socket: what a webhook is told, and that nothing waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError

from tests.cluster.api import until
from tests.properties import life
from tests.unit.controller.test_approvals import Case
from tests.unit.controller.test_next_step import NOW, asked, granted
from valetkey.controller.notices import TRIES, Notices
from valetkey.kube.api import Json
from valetkey.policy.decide import Waiting
from valetkey.settings import Settings

WAITING = Waiting("fix", 2, (), (), timedelta(minutes=30))
SOON = timedelta(milliseconds=1)


class Webhook:
    """A receiver that gives the answers that it is told to, then 204; and what it was sent."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.received: list[Json] = []
        self.headers: list[Any] = []
        self.elsewhere = 0
        self.url = ""
        self.hangs = False

    async def receive(self, request: web.Request) -> web.Response:
        self.received.append(await request.json())
        self.headers.append(request.headers)
        if self.hangs:
            await asyncio.sleep(3600)
        status = self.answers.pop(0) if self.answers else 204
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 307 else {})

    async def not_here(self, _: web.Request) -> web.Response:
        self.elsewhere += 1
        return web.Response()


@asynccontextmanager
async def served(*answers: int) -> AsyncIterator[Webhook]:
    webhook = Webhook(*answers)
    app = web.Application()
    app.router.add_post("/secret-path", webhook.receive)
    app.router.add_post("/elsewhere", webhook.not_here)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        webhook.url = f"http://127.0.0.1:{port}/secret-path"
        yield webhook
    finally:
        await runner.cleanup()


@asynccontextmanager
async def running(url: str) -> AsyncIterator[Notices]:
    notices = Notices(url, cluster="west", clock=lambda: NOW, pause=SOON)
    task = asyncio.create_task(notices.run())
    try:
        yield notices
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def times(webhook: Webhook, number: int) -> Callable[[], Awaitable[bool]]:
    async def received() -> bool:
        return len(webhook.received) >= number

    return received


async def test_a_webhook_is_told_what_is_asked_by_whom_why_and_what_to_run() -> None:
    async with served() as webhook, running(webhook.url) as notices:
        notices.post(asked(), WAITING)
        await until(times(webhook, 1), "the notice", pause=0.01)
    assert webhook.headers[0]["Content-Type"] == "application/cloudevents+json; charset=utf-8"
    assert webhook.received == [
        {
            "specversion": "1.0",
            "id": "request-uid/fix",
            "source": "/valetkey/west",
            "type": "dev.valetkey.approval.requested",
            "subject": "shop/r",
            "time": "2026-11-23T14:00:00.000000Z",
            "datacontenttype": "application/json",
            "data": {
                "access": "shop: get configmaps",
                "objective": "mend it",
                "purpose": "fix",
                "policy": "fix",
                "approvals": 2,
                "until": "2026-11-23T14:30:00Z",
                "agent": "shop/fixer/one",
                "command": "kubectl valetkey approve shop/r",
            },
        }
    ]


async def test_a_webhook_is_told_what_was_granted_in_an_emergency_and_how_it_is_reviewed() -> None:
    grant = granted()
    order = grant.spec.order.model_copy(update={"review_by": NOW + timedelta(hours=24)})
    used = grant.model_copy(update={"spec": grant.spec.model_copy(update={"order": order})})
    async with served() as webhook, running(webhook.url) as notices:
        notices.post_used(asked(), used)
        await until(times(webhook, 1), "the notice", pause=0.01)
    (event,) = webhook.received
    assert (event["type"], event["subject"]) == ("dev.valetkey.breakglass.used", "shop/r")
    assert event["id"] == "request-uid/used"
    assert event["data"] == {
        "access": "shop: get configmaps",
        "objective": "mend it",
        "purpose": "fix",
        "agent": "shop/fixer/one",
        "policy": order.policy.name,
        "reviewBy": "2026-11-24T14:00:00Z",
        "until": event["data"]["until"],
        "command": f"kubectl valetkey review shop/r --uid request-uid --policy {order.policy.name}",
    }


async def test_what_was_granted_in_an_emergency_is_told_first_however_many_wait_for_people() -> None:
    order = granted().spec.order.model_copy(update={"review_by": NOW})
    used = granted().model_copy(update={"spec": granted().spec.model_copy(update={"order": order})})
    notices = Notices("http://127.0.0.1:1/", cluster="west", clock=lambda: NOW)
    for number in range(300):
        notices.post(asked(name=f"r{number}"), WAITING)
    notices.post_used(asked(name="emergency"), used)
    (_, _, first) = notices._queue.get_nowait()
    assert first["subject"] == "shop/emergency"
    assert notices._queue.qsize() == 256


async def test_a_notice_that_fails_is_sent_again_with_the_same_id_and_the_next_one_after_it() -> None:
    async with served(500, 429, 404) as webhook, running(webhook.url) as notices:
        notices.post(asked(), WAITING)
        notices.post(asked(name="s"), WAITING)
        await until(times(webhook, 5), "the notices", pause=0.01)
    assert [event["subject"] for event in webhook.received] == ["shop/r"] * 4 + ["shop/s"]
    assert len({event["id"] for event in webhook.received[:4]}) == 1


async def test_after_five_tries_it_is_dropped_and_said_without_the_address(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with served(*[500] * TRIES) as webhook, running(webhook.url) as notices:
        notices.post(asked(), WAITING)
        notices.post(asked(name="s"), WAITING)
        await until(times(webhook, TRIES + 1), "the notices", pause=0.01)
    assert [event["subject"] for event in webhook.received] == ["shop/r"] * TRIES + ["shop/s"]
    assert caplog.messages[-1] == "127.0.0.1 was not told of shop/r: it answered 500; 0 more tries"
    assert "secret-path" not in caplog.text


async def test_where_it_is_sent_on_to_nobody_is_told() -> None:
    async with served(307) as webhook, running(webhook.url) as notices:
        notices.post(asked(), WAITING)
        await until(times(webhook, 2), "the second try", pause=0.01)
        assert webhook.elsewhere == 0


async def test_nobody_listens_and_whoever_comes_after_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async with served() as webhook:
        url = webhook.url
    async with running(url) as notices:
        for _ in range(3):
            notices.post(asked(), WAITING)

        async def given_up() -> bool:
            return caplog.text.count("; 0 more tries") == 3

        await until(given_up, "all three to be given up", pause=0.01)


async def test_more_than_can_wait_are_dropped_and_nobody_waits_for_a_receiver_that_hangs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served() as webhook, running(webhook.url) as notices:
        webhook.hangs = True
        for _ in range(300):
            notices.post(asked(), WAITING)
        assert "shop/r: too many wait" in caplog.text
        await until(times(webhook, 1), "the first", pause=0.01)
        assert len(webhook.received) == 1


async def test_people_are_told_once_for_each_policy_that_a_request_begins_to_wait_for() -> None:
    told: list[tuple[str, str]] = []
    case = Case(approval={"approvals": 2})

    def process() -> life.Process:
        made = life.Process(case.world)
        object.__setattr__(made.backends, "tell_people", lambda r, w: told.append((r.metadata.name, w.policy)))
        return made

    case.process = process()
    await case.turn(2)
    case.say("ann")
    await case.turn()
    case.process = process()
    await case.turn(2)
    assert told == [("r", "fix")]
    other = life.policy(15, approval={}) | {"metadata": {"name": "earlier", "namespace": ""}}
    case.world.add("AgentPolicy", other)
    await case.turn(2)
    assert told == [("r", "fix"), ("r", "earlier")]


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("https://hooks.example.com/a?b=c", True),
        ("http://127.0.0.1:8080/a", True),
        ("http://[::1]/a", True),
        ("http://localhost", True),
        ("http://hooks.example.com", False),
        ("http://127.0.0.1.example.com", False),
        ("https://user:word@hooks.example.com", False),
        ("file:///etc/passwd", False),
        ("https://", False),
        ("hooks.example.com", False),
    ],
)
def test_a_webhook_is_reached_by_https_or_not_at_all(url: str, taken: bool) -> None:
    def settings() -> Settings:
        paths = {"logDirectory": "/l", "guards": "/g", "runDirectory": "/r"}
        return Settings.model_validate({"agentNamespaces": ["shop"], "approvalsWebhook": url, **paths})

    if taken:
        assert settings().approvals_webhook == url
    else:
        with pytest.raises(ValidationError, match="approvalsWebhook"):
            settings()
