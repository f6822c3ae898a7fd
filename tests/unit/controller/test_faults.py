"""A grant's whole life, with one request of it failing: one credential, all of it revoked, and for the right reason."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Coroutine
from contextlib import closing
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from _pytest.mark import ParameterSet

from tests.properties import life as given
from tests.properties.world import World
from valetkey.errors import UnavailableError
from valetkey.kinds.base import SECRET_TYPE
from valetkey.kube.api import ApiError, Json
from valetkey.reasons import Reason

T = TypeVar("T")
MADE = ("ServiceAccount", "Role", "RoleBinding")


class Faulty(World):
    """A world in which one request fails, before or after it was carried out; and it holds what must always hold."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.failing = 0
        """The number of the request that fails."""
        self.status = 0
        self.carried_out = False
        self.log_is_down = False

    async def get(self, path: str) -> Json:
        return await self._through(f"GET {path}", super().get(path))

    async def create(self, path: str, body: Json) -> Json:
        return await self._through(f"POST {path}", super().create(path, body))

    async def replace(self, path: str, body: Json) -> Json:
        return await self._through(f"PUT {path}", super().replace(path, body))

    async def patch(self, path: str, body: Json) -> Json:
        return await self._through(f"PATCH {path}", super().patch(path, body))

    async def delete(self, path: str, *, uid: str) -> Json:
        return await self._through(f"DELETE {path}", super().delete(path, uid=uid))

    async def write(self, reason: str, **fields: Any) -> None:
        self.asked.append(f"LOG {reason}")
        if self.log_is_down or len(self.asked) == self.failing:
            raise UnavailableError(Reason.BACKEND_UNAVAILABLE, "the disk is full")
        await super().write(reason, **fields)

    def add(self, kind: str, body: Json) -> Json:
        if kind in MADE:
            (grant,) = self.all("TaskGrant")
            plan = grant["spec"]["plan"]["kubernetes"]
            assert body["metadata"]["name"] in [entry["name"] for entry in (plan["account"], *plan["objects"])]
            assert self.told("IssuePending"), "nothing is made before it is on record"
        return super().add(kind, body)

    def _token(self, account: Json) -> Json:
        assert len(self.told("IssuePending")) > len(self.tokens), "each credential has its own record"
        return super()._token(account)

    def told(self, reason: str) -> list[dict[str, Any]]:
        return [record for record in self.records if record["reason"] == reason]

    def all(self, *kinds: str) -> list[Json]:
        return [body for (kind, _, _), body in self.objects.items() if kind in kinds]

    async def _through(self, what: str, work: Coroutine[Any, Any, T]) -> T:
        self.asked.append(what)
        assert len(self.asked) < 500, "it goes in circles"
        if len(self.asked) != self.failing:
            return await work
        if self.carried_out:
            await work
        else:
            work.close()
        raise ApiError(self.status, "Fault", "a fault")


class Life:
    """One grant from its request to the end of its history."""

    def __init__(self, world: Faulty) -> None:
        self.world = world
        world.add("ValidatingAdmissionPolicy", {**given.GUARD})
        world.add("Namespace", {"metadata": {"name": "shop", "namespace": ""}})
        world.add("AgentPolicy", given.policy(15))
        world.now += timedelta(minutes=1)
        owner = world.add("Pod", given.pod("one"))
        world.add("AccessRequest", given.request("r", owner, "15m", "valetkey-one-a", world.now))
        self.process = given.Process(world)

    async def all_of_it(self) -> None:
        await self.until(lambda: self.credential() is not None)
        self.holds_one_credential()
        assert self.conditions()["Ready"] == ("True", "AccessDelivered")
        assert self.conditions()["Finished"] == ("False", "TaskInProgress")
        await self.renew()
        self.holds_one_credential(renewed=True)
        await self.release()
        self.nothing_is_left()
        self.world.now += timedelta(hours=2)
        await self.until(lambda: not self.world.all("AccessRequest"))

    async def renew(self) -> None:
        first = self.credential()
        self.world.now += timedelta(minutes=7)
        await self.until(lambda: self.credential() != first)

    async def release(self) -> None:
        self.world.change("AccessRequest", "shop", "r", {"spec": {"outcome": "Succeeded"}})
        await self.until(lambda: not self.world.all("TaskGrant"))

    async def until(self, done: Callable[[], bool], rounds: int = 12) -> None:
        for _ in range(rounds):
            await self.turn()
            if done():
                return
        raise AssertionError(f"not in {rounds} rounds: {self.world.asked}")

    async def turn(self, times: int = 1) -> None:
        for _ in range(times):
            await self.process.watch()
            await self.process.work()
            self.world.now += timedelta(seconds=1)

    def credential(self) -> str | None:
        grants = self.world.all("TaskGrant")
        return grants[0].get("status", {}).get("credential", {}).get("id") if grants else None

    def secrets(self) -> list[Json]:
        return [body for body in self.world.all("Secret") if body["type"] == SECRET_TYPE]

    def conditions(self) -> dict[str, tuple[str, str]]:
        (request,) = self.world.all("AccessRequest")
        return {c["type"]: (c["status"], c["reason"]) for c in request["status"]["conditions"]}

    def holds_one_credential(self, *, renewed: bool = False) -> None:
        (secret,) = self.secrets()
        token = base64.b64decode(secret["data"]["token"]).decode()
        live = self.world.live_tokens()
        assert token in live
        assert renewed or live == {token}
        assert sorted(body["kind"] for body in self.world.all(*MADE)) == sorted(MADE)

    def nothing_is_left(self, reason: Reason = Reason.TASK_RELEASED) -> None:
        assert self.world.all("TaskGrant", *MADE) == []
        assert self.secrets() == []
        assert self.world.live_tokens() == set()
        assert self.conditions()["Ready"] == ("False", "AccessEnded")
        assert self.conditions()["Finished"] == ("True", reason)
        for record in self.world.told("CredentialRevoked"):
            assert record["message"] == f"{reason}; proof: Absent"


def _requests() -> list[tuple[int, str]]:
    """What is asked in a life without a fault, numbered."""
    world = Faulty()
    with closing(asyncio.new_event_loop()) as loop:
        loop.run_until_complete(Life(world).all_of_it())
    return list(enumerate(world.asked, start=1))


WHOLE = _requests()
RECORDS = [pytest.param(n, id=f"{n}-{what}") for n, what in WHOLE if what.startswith("LOG")]


def failing(*statuses: int, but: str = "none") -> list[ParameterSet]:
    """Each request with each status that it may fail with."""
    asked = [(n, what) for n, what in WHOLE if not what.startswith(("LOG", but))]
    return [pytest.param(n, s, id=f"{n}-{what.replace('/', '.')}-{s}") for n, what in asked for s in statuses]


def number_of(what: str) -> int:
    return next(n for n, asked in WHOLE if asked.endswith(what))


def a_life(number: int, status: int = 0, *, carried_out: bool = False) -> Life:
    """A life in which the request of that number fails."""
    world = Faulty()
    world.failing, world.status, world.carried_out = number, status, carried_out
    return Life(world)


def test_a_life_without_a_fault_asks_for_each_thing_once() -> None:
    asked = [what for _, what in WHOLE]
    assert sum(what.endswith("/taskgrants") for what in asked) == asked.count("LOG PolicyMatched") == 1
    assert len(asked) < 50


@pytest.mark.parametrize(("number", "status"), failing(0, 409, 429, 500))
async def test_a_request_that_fails_once_does_no_harm(number: int, status: int) -> None:
    await a_life(number, status).all_of_it()


@pytest.mark.parametrize(("number", "status"), failing(0, 500, but="GET"))
async def test_a_write_that_seemed_to_fail_but_was_carried_out_does_no_harm(number: int, status: int) -> None:
    await a_life(number, status, carried_out=True).all_of_it()


async def test_a_grant_that_was_opened_unknown_to_the_operator_is_taken_up_before_any_watch_tells_of_it() -> None:
    life = a_life(number_of("/taskgrants"), carried_out=True)
    world = life.world
    await life.turn()
    (opened,) = world.all("TaskGrant")
    await life.process.work()
    (grant,) = world.all("TaskGrant")
    assert grant["metadata"]["uid"] == opened["metadata"]["uid"]
    life.holds_one_credential()


@pytest.mark.parametrize("number", range(1, 31))
async def test_a_request_whose_time_is_over_is_not_granted_again_whatever_met_a_conflict(number: int) -> None:
    life = a_life(number, 409)
    world = life.world
    world.change("AccessRequest", "shop", "r", {"spec": {"ttl": "2m"}})
    await life.until(lambda: life.credential() is not None)
    world.now += timedelta(minutes=2)
    await life.until(lambda: not world.all("TaskGrant"))
    await life.turn()
    life.nothing_is_left(Reason.TTL_REACHED)


async def test_a_request_that_is_gone_is_not_refused_for_ever() -> None:
    life = a_life(0)
    await life.process.watch()
    life.world.remove("Pod", "shop", "one")
    await life.process.work()
    assert life.world.all("AccessRequest", "TaskGrant") == []
    assert len(life.world.asked) < 10


async def test_a_secret_that_was_placed_again_but_not_recorded_is_taken_away() -> None:
    world = Faulty()
    life = Life(world)
    await life.until(lambda: life.credential() is not None)
    world.remove("Secret", "shop", "valetkey-one-a")
    world.now += timedelta(minutes=7)
    world.failing, world.status = number_of("LOG TaskReleased") - 2, 500
    await life.turn()
    assert world.asked[world.failing - 1].endswith("/taskgrants/r/status")
    await life.release()
    life.nothing_is_left()


@pytest.mark.parametrize("number", RECORDS)
async def test_a_record_that_cannot_be_written_once_does_no_harm(number: int) -> None:
    await a_life(number).all_of_it()


async def test_nothing_is_granted_while_nothing_can_be_recorded() -> None:
    world = Faulty()
    life = Life(world)
    world.log_is_down = True
    await life.turn(5)
    assert world.all("TaskGrant", *MADE) == []
    assert world.tokens == {}
    world.log_is_down = False
    await life.all_of_it()


async def test_a_grant_that_is_open_gets_no_credential_while_nothing_can_be_recorded() -> None:
    life = a_life(number_of("LOG IssuePending"))
    world = life.world
    await life.turn()
    world.log_is_down = True
    await life.turn(5)
    assert len(world.all("TaskGrant")) == 1
    assert world.all(*MADE) == []
    assert world.tokens == {}


async def test_a_credential_is_not_renewed_while_nothing_can_be_recorded() -> None:
    life = a_life(0)
    await life.until(lambda: life.credential() is not None)
    life.world.log_is_down = True
    life.world.now += timedelta(minutes=7)
    await life.turn(5)
    assert len(life.world.tokens) == 1


@pytest.mark.parametrize("number", [number_of("LOG CredentialDelivered"), number_of("LOG CredentialIssued"), 0])
async def test_revocation_goes_on_though_nothing_can_be_recorded(number: int) -> None:
    life = a_life(number)
    await life.turn()
    assert life.world.live_tokens()
    life.world.log_is_down = True
    await life.release()
    life.nothing_is_left()
