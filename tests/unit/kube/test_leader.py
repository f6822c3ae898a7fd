"""Leadership where the API server fails in ways that the real one cannot be made to: late, lost, silent."""

from __future__ import annotations

import asyncio
import copy
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest

from valetkey.kinds.base import format_time
from valetkey.kube.api import ApiError, Json
from valetkey.kube.leader import Leadership, LostError

TTL = 1.0
OURS, THEIRS = "valetkey-0_uid", "valetkey-1_uid"
Hook = Callable[[str], Awaitable[None]]


async def _nothing(_: str) -> None:
    """What happens to a request of which a test says nothing."""


class Server:
    """One Leader object; a test says what becomes of a request before it is carried out, and of its answer after."""

    def __init__(self) -> None:
        self.stored: Json | None = None
        self.asked: list[str] = []
        self.before: Hook = _nothing
        self.after: Hook = _nothing
        self.watchable = True
        self._version = 0
        self._changed = asyncio.Condition()

    async def write(self, **spec: object) -> None:
        """Somebody else's write."""
        stored = self.stored or {"metadata": {"name": "valetkey", "namespace": "valetkey-system"}, "spec": {}}
        await self._store(stored | {"spec": stored["spec"] | spec})

    async def remove(self) -> None:
        """Somebody deletes it."""
        self.stored = None
        async with self._changed:
            self._changed.notify_all()

    async def get(self, path: str) -> Json:
        assert path.endswith("/namespaces/valetkey-system/leaders/valetkey")
        return await self._request("GET", self._read)

    async def create(self, path: str, body: Json) -> Json:
        async def create() -> Json:
            if self.stored is not None:
                raise ApiError(409, "AlreadyExists", "")
            return await self._store(body)

        assert path.endswith("/namespaces/valetkey-system/leaders")
        return await self._request("POST", create)

    async def replace(self, path: str, body: Json) -> Json:
        async def replace() -> Json:
            stored = await self._read()
            if body["metadata"]["resourceVersion"] != stored["metadata"]["resourceVersion"]:
                raise ApiError(409, "Conflict", "")
            return await self._store(body)

        assert path.endswith("/leaders/valetkey")
        return await self._request("PUT", replace)

    async def patch(self, path: str, body: Json) -> Json:
        raise AssertionError(path)

    async def delete(self, path: str, *, uid: str) -> Json:
        raise AssertionError(path)

    def list(self, path: str, *, metadata_only: bool = False, selector: str = "") -> AsyncIterator[Json]:
        raise AssertionError(path)

    async def watch(self, path: str, *, name: str, version: str | None = None) -> AsyncGenerator[Json, None]:
        assert (path.rpartition("/")[2], name) == ("leaders", "valetkey")
        if not self.watchable:
            raise ApiError(403, "Forbidden", "")
        while True:
            if self.stored is None:
                yield {"type": "DELETED", "object": {}}
            else:
                yield {"type": "MODIFIED", "object": await self._read()}
            async with self._changed:
                await self._changed.wait()

    async def _request(self, verb: str, carry_out: Callable[[], Awaitable[Json]]) -> Json:
        self.asked.append(verb)
        await self.before(verb)
        answer = await carry_out()
        await self.after(verb)
        return answer

    async def _read(self) -> Json:
        if self.stored is None:
            raise ApiError(404, "NotFound", "")
        return copy.deepcopy(self.stored)

    async def _store(self, body: Json) -> Json:
        self._version += 1
        self.stored = copy.deepcopy(body | {"metadata": body["metadata"] | {"resourceVersion": str(self._version)}})
        async with self._changed:
            self._changed.notify_all()
        return await self._read()

    @property
    def holder(self) -> str:
        """Whom it names."""
        assert self.stored is not None
        return str(self.stored["spec"].get("holderIdentity", ""))


class Clock:
    """The time of one machine, which a test may set forward: a process that was stopped finds that much later."""

    def __init__(self) -> None:
        self.stopped = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.stopped


def candidate(server: Server, clock: Clock | None = None, identity: str = OURS) -> Leadership:
    return Leadership(
        server,
        namespace="valetkey-system",
        name="valetkey",
        identity=identity,
        ttl=timedelta(seconds=TTL),
        renew_every=timedelta(seconds=0.05),
        clock=clock or Clock(),
    )


@asynccontextmanager
async def keeping(leadership: Leadership) -> AsyncIterator[asyncio.Task[None]]:
    await leadership.acquire()
    task = asyncio.create_task(leadership.keep())
    yield task
    task.cancel()
    with suppress(asyncio.CancelledError, LostError):
        await task


def now() -> float:
    return asyncio.get_running_loop().time()


async def forever(_: str) -> None:
    await asyncio.Event().wait()


async def test_who_never_acquired_does_not_hold() -> None:
    server = Server()
    assert not candidate(server).held
    assert server.asked == []


async def test_a_process_that_was_stopped_for_longer_than_the_ttl_does_not_hold_before_anything_else_ran() -> None:
    clock = Clock()
    leadership = candidate(Server(), clock)
    await leadership.acquire()
    clock.stopped = TTL * 0.9
    assert leadership.held
    clock.stopped = TTL
    assert not leadership.held  # nothing was awaited since


async def test_a_process_that_was_stopped_for_longer_than_the_ttl_renews_nothing_when_it_wakes() -> None:
    server, clock = Server(), Clock()
    async with keeping(candidate(server, clock)) as keeps:
        clock.stopped, asked = TTL, len(server.asked)
        with pytest.raises(LostError, match="not renewed for 1 s"):
            await keeps
    assert server.asked[asked:] == []


@pytest.mark.parametrize("verb", ["POST", "PUT"])
async def test_the_time_counts_from_before_the_request_and_not_from_its_answer(verb: str) -> None:
    server, clock = Server(), Clock()
    if verb == "PUT":
        await server.write(holderIdentity="")

    async def late(of: str) -> None:
        clock.stopped += 0.6 * TTL if of == verb else 0

    server.after = late
    leadership = candidate(server, clock)
    await leadership.acquire()
    assert leadership.held
    clock.stopped += 0.5 * TTL
    assert not leadership.held


async def test_a_holder_that_claims_an_hour_is_waited_for_for_a_minute() -> None:
    server, clock = Server(), Clock()
    await server.write(holderIdentity="nobody_0", leaseDurationSeconds=3600)
    waits = asyncio.create_task(candidate(server, clock).acquire())
    await asyncio.sleep(0.05)
    assert not waits.done()
    clock.stopped += 60
    await server.write(renewTime="now")  # wakes who waits; each write counts anew
    await asyncio.sleep(0.05)
    assert not waits.done()
    await server.remove()
    await asyncio.wait_for(waits, 3 * TTL)


async def test_an_api_server_that_does_not_answer_ends_leadership_at_its_deadline_and_not_after() -> None:
    server = Server()
    leadership = candidate(server)
    await leadership.acquire()
    acquired = now()
    server.before = forever
    keeps = asyncio.create_task(leadership.keep())
    await asyncio.sleep(0.8 * TTL)
    assert leadership.held
    await asyncio.sleep(acquired + TTL + 0.1 - now())
    for _ in range(20):  # where the machine stood still meanwhile, both are to be done now
        await asyncio.sleep(0)
    assert keeps.done()
    with pytest.raises(LostError):
        await keeps
    assert not leadership.held


async def test_renewals_that_fail_are_tried_again_in_time() -> None:
    server, clock = Server(), Clock()
    failed: list[str] = []

    async def fails(verb: str) -> None:
        if len(failed) < 3:
            failed.append(verb)
            raise ApiError(500, "InternalError", "etcdserver: leader changed")

    async with keeping(candidate(server, clock)) as keeps:
        server.before = fails
        await asyncio.sleep(1.2 * TTL)
        assert failed == ["PUT"] * 3
        assert not keeps.done()
        assert server.holder == OURS


async def test_a_renewal_whose_answer_was_lost_is_found_out_and_goes_on() -> None:
    server = Server()
    lost: list[str] = []

    async def loses(verb: str) -> None:
        if verb == "PUT" and not lost:
            lost.append(verb)
            raise ApiError(0, "NoAnswer", "")

    leadership = candidate(server)
    async with keeping(leadership) as keeps:
        server.after = loses
        await asyncio.sleep(1.5 * TTL)
        assert lost
        assert leadership.held
        assert not keeps.done()


async def test_an_object_that_somebody_else_wrote_on_is_renewed_with_what_he_wrote() -> None:
    server = Server()
    leadership = candidate(server)
    async with keeping(leadership) as keeps:
        await server.write(strategy="theirs")
        await asyncio.sleep(1.5 * TTL)
        assert leadership.held
        assert not keeps.done()
        assert server.stored is not None
        assert server.stored["spec"]["strategy"] == "theirs"
        assert server.stored["spec"]["leaseTransitions"] == 0


@pytest.mark.parametrize("holder", [THEIRS, ""])
async def test_who_finds_that_the_object_does_not_name_it_any_more_has_lost_and_leaves_it_alone(holder: str) -> None:
    server = Server()
    async with keeping(candidate(server)) as keeps:
        await server.write(holderIdentity=holder)
        began = now()
        with pytest.raises(LostError, match=f"{holder or 'nobody'} leads"):
            await keeps
    assert now() - began < 0.3
    assert server.holder == holder


async def test_where_the_object_cannot_be_watched_it_is_taken_when_it_is_over_and_not_before() -> None:
    server = Server()
    server.watchable = False
    await server.write(holderIdentity=THEIRS, leaseDurationSeconds=1)
    began = now()
    await candidate(server).acquire()
    assert 1 <= now() - began <= 1.5
    assert server.holder == OURS


async def test_who_waits_counts_the_ttl_that_the_holder_wrote() -> None:
    server = Server()
    await server.write(holderIdentity=THEIRS, leaseDurationSeconds=2)
    began = now()
    await candidate(server).acquire()
    assert 2 <= now() - began <= 2.5


async def test_a_holder_whose_clock_is_years_behind_is_not_hurried() -> None:
    server = Server()
    await server.write(holderIdentity=THEIRS, leaseDurationSeconds=1, renewTime="2001-01-01T00:00:00.000000Z")
    began = now()
    await candidate(server).acquire()
    assert 1 <= now() - began <= 1.5


async def test_who_waits_sends_nothing_between_its_look_and_the_moment_of_expiry() -> None:
    server = Server()
    await server.write(holderIdentity=THEIRS, leaseDurationSeconds=1)
    await candidate(server).acquire()
    assert server.asked in (["GET", "GET", "PUT"], ["GET", "GET", "GET", "PUT"])  # a timer may be a hair early


async def test_a_renewal_that_who_waits_has_seen_gives_the_holder_a_whole_ttl_more() -> None:
    server = Server()
    await server.write(holderIdentity=THEIRS, leaseDurationSeconds=1)
    waits = asyncio.create_task(candidate(server).acquire())
    await asyncio.sleep(0.6)
    await server.write(renewTime="2026-01-01T00:00:00.000000Z")
    renewed = now()
    await waits
    assert 1 <= now() - renewed <= 1.5


async def test_who_was_not_the_quickest_waits_for_the_one_that_was() -> None:
    server = Server()
    await server.write(holderIdentity="")

    async def overtaken(verb: str) -> None:
        if verb == "PUT" and server.holder == "":
            await server.write(holderIdentity=THEIRS, leaseDurationSeconds=1)

    server.before = overtaken
    leadership = candidate(server)
    waits = asyncio.create_task(leadership.acquire())
    await asyncio.sleep(0.8)
    assert server.holder == THEIRS
    assert not leadership.held
    assert not waits.done()
    await waits
    assert server.holder == OURS


async def test_who_was_not_the_quickest_to_create_it_waits_too() -> None:
    server = Server()

    async def overtaken(verb: str) -> None:
        if verb == "POST" and server.stored is None:
            await server.write(holderIdentity=THEIRS, leaseDurationSeconds=1)

    server.before = overtaken
    leadership = candidate(server)
    waits = asyncio.create_task(leadership.acquire())
    await asyncio.sleep(0.8)
    assert server.holder == THEIRS
    assert not leadership.held
    await waits
    assert server.holder == OURS


async def test_who_waits_outlives_an_api_server_that_fails() -> None:
    server = Server()
    failed: list[str] = []

    async def fails(verb: str) -> None:
        if len(failed) < 2:
            failed.append(verb)
            raise ApiError(503, "ServiceUnavailable", "")

    server.before = fails
    leadership = candidate(server)
    await leadership.acquire()
    assert leadership.held
    assert len(failed) == 2


async def test_who_releases_does_not_hold_before_the_request_is_sent() -> None:
    server = Server()
    leadership = candidate(server)
    await leadership.acquire()
    held: list[bool] = []

    async def look(verb: str) -> None:
        held.append(leadership.held)

    server.before = look
    await leadership.release()
    assert held == [False, False]  # asked at the GET and at the PUT
    assert server.holder == ""
    assert not leadership.held


async def test_who_does_not_hold_releases_nothing() -> None:
    server, clock = Server(), Clock()
    leadership = candidate(server, clock)
    await leadership.acquire()
    clock.stopped, asked = TTL, len(server.asked)
    await leadership.release()
    assert server.asked[asked:] == []


async def test_what_was_taken_over_is_not_released() -> None:
    server = Server()
    leadership = candidate(server)
    await leadership.acquire()
    await server.write(holderIdentity=THEIRS)
    await leadership.release()
    assert server.holder == THEIRS
    assert not leadership.held


@pytest.mark.parametrize("status", [0, 403, 409, 500])
async def test_a_release_that_fails_is_no_error(status: int) -> None:
    server = Server()
    leadership = candidate(server)
    await leadership.acquire()

    async def fails(verb: str) -> None:
        raise ApiError(status, "", "")

    server.before = fails
    await leadership.release()
    assert not leadership.held


async def test_a_release_that_gets_no_answer_holds_nobody_up() -> None:
    server = Server()
    leadership = candidate(server)
    await leadership.acquire()
    server.before = forever
    began = now()
    await leadership.release()
    assert now() - began < 1.5
    assert not leadership.held


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(seconds=1.9), timedelta(seconds=-1)])
async def test_a_ttl_that_cannot_be_written_down_is_refused(ttl: timedelta) -> None:
    with pytest.raises(ValueError, match="whole seconds"):
        Leadership(Server(), namespace="valetkey-system", name="valetkey", identity=OURS, ttl=ttl)


async def test_who_waits_does_not_lead_beside_one_that_has_not_noticed_that_it_was_deleted() -> None:
    server = Server()
    first, second = candidate(server), candidate(server, identity=THEIRS)
    await first.acquire()
    waits = asyncio.create_task(second.acquire())
    await asyncio.sleep(0.2)
    await server.remove()
    while not waits.done():
        await asyncio.sleep(0.005)
        assert not (first.held and second.held)
    assert not first.held
    assert server.holder == THEIRS


async def test_who_is_told_that_another_leads_does_not_hold_from_that_moment() -> None:
    server = Server()
    leadership = candidate(server)
    await leadership.acquire()
    await server.write(holderIdentity=THEIRS)
    with pytest.raises(LostError):
        await leadership.keep()
    assert not leadership.held


async def test_what_was_deleted_and_not_made_again_yet_is_released_without_an_error() -> None:
    server = Server()
    leadership = candidate(server)
    async with keeping(leadership) as keeps:
        server.stored = None

        async def stalls(verb: str) -> None:
            if verb == "POST":
                await forever(verb)

        server.before = stalls
        await asyncio.sleep(0.2)
        keeps.cancel()
        await asyncio.wait([keeps])
        await leadership.release()
        assert not leadership.held


async def test_who_has_acquired_holds_even_where_the_answer_came_after_the_time_it_gave() -> None:
    server, clock = Server(), Clock()
    late: list[str] = []

    async def comes_late(verb: str) -> None:
        if verb == "POST":
            late.append(verb)
            clock.stopped += 2 * TTL

    server.after = comes_late
    leadership = candidate(server, clock)
    await leadership.acquire()
    assert late
    assert leadership.held


async def test_where_the_namespace_is_gone_the_api_server_is_not_overrun() -> None:
    server = Server()

    async def gone(verb: str) -> None:
        raise ApiError(404, "NotFound", 'namespaces "valetkey-system" not found')

    server.before = gone
    waits = asyncio.create_task(candidate(server).acquire())
    await asyncio.sleep(0.6)
    waits.cancel()
    assert len(server.asked) <= 8


async def test_one_renewal_that_gets_no_answer_does_not_cost_the_leadership() -> None:
    server = Server()
    silent: list[str] = []

    async def falls_silent(verb: str) -> None:
        if verb == "PUT" and not silent:
            silent.append(verb)
            await forever(verb)

    leadership = candidate(server)
    async with keeping(leadership) as keeps:
        server.before = falls_silent
        await asyncio.sleep(1.5 * TTL)
        assert silent
        assert leadership.held
        assert not keeps.done()


async def test_the_same_pod_started_again_takes_up_at_once_where_its_dead_process_left_off() -> None:
    server = Server()
    await candidate(server).acquire()
    began = now()
    await candidate(server).acquire()
    assert now() - began < 0.3
    assert server.stored is not None
    assert server.stored["spec"]["leaseTransitions"] == 0


async def test_who_waits_leads_at_once_when_it_sees_that_the_holder_let_go() -> None:
    server = Server()
    first, second = candidate(server), candidate(server, identity=THEIRS)
    await first.acquire()
    waits = asyncio.create_task(second.acquire())
    await asyncio.sleep(0.2)
    assert not waits.done()
    began = now()
    await first.release()
    await waits
    assert now() - began < 0.3
    assert server.holder == THEIRS


async def test_times_are_written_to_the_microsecond_as_client_go_does() -> None:
    server, fractions = Server(), set()
    for _ in range(5):
        await candidate(server).acquire()
        assert server.stored is not None
        found = re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.(\d{6})Z", server.stored["spec"]["renewTime"])
        assert found
        fractions.add(found[1])
    assert len(fractions) > 1


async def test_what_a_follower_says_of_a_restored_store_its_leader_hears_and_whoever_leads_next() -> None:
    server, heard = Server(), list[datetime]()
    leader, follower = candidate(server), candidate(server, identity=THEIRS)
    leader.restored_said = heard.append
    at = datetime(2026, 11, 23, 14, 58, 49, 123456, tzinfo=UTC)
    async with keeping(leader) as keeps:
        await follower.say_restored(at)
        await follower.say_restored(at - timedelta(hours=1))  # what is older is no news
        await asyncio.sleep(0.6 * TTL)
        assert heard == [at]
        assert leader.held
        assert not keeps.done()
        assert server.holder == OURS
    await leader.release()
    await asyncio.wait_for(follower.acquire(), 3 * TTL)
    assert follower.restored == at
    assert server.stored is not None
    assert server.stored["spec"]["restoredAt"] == "2026-11-23T14:58:49.123456Z"


async def test_where_nobody_ever_led_nobody_is_told() -> None:
    server = Server()
    await candidate(server).say_restored(datetime(2026, 11, 23, tzinfo=UTC))
    assert server.stored is None


FUTURE = "2999-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "poison",
    [
        {"restoredAt": "2026-01-01t00:00:00z"},
        {"restoredAt": "2026-01-01T00:00:00+99:99"},
        {"restoredAt": "0001-01-01T00:00:00+23:00"},
        {"restoredAt": "2026-01-01T00:00:00"},
        {"restoredAt": FUTURE},
        {"leaseTransitions": 2**63 - 1},
    ],
)
async def test_what_a_stolen_token_wrote_keeps_nobody_from_leading_nor_a_restore_from_being_known(
    poison: Json, caplog: pytest.LogCaptureFixture
) -> None:
    server, heard = Server(), list[datetime]()
    await server.write(**{"holderIdentity": THEIRS, "leaseDurationSeconds": 1, "leaseTransitions": 3} | poison)
    leadership = candidate(server)
    leadership.restored_said = heard.append
    restored = datetime.now(UTC)
    async with keeping(leadership) as keeps:
        assert leadership.held
        assert server.stored is not None
        assert 0 <= server.stored["spec"]["leaseTransitions"] <= 4
        assert server.stored["spec"].get("restoredAt") is None, "nobody hears of it any more"
        assert not heard
        await leadership.say_restored(restored)
        await asyncio.sleep(0.3)
        assert server.stored["spec"]["restoredAt"] == format_time(restored)
        assert heard == [restored]
        assert not keeps.done()
    assert caplog.text.count("none of ours says so") == ("restoredAt" in poison)


async def test_a_restore_is_known_though_one_that_is_yet_to_come_was_written_first() -> None:
    server = Server()
    await server.write(holderIdentity=THEIRS, leaseDurationSeconds=60, leaseTransitions=0, restoredAt=FUTURE)
    follower, restored = candidate(server), datetime.now(UTC)
    await follower.say_restored(restored)
    assert follower.restored == restored
    assert server.stored is not None
    assert server.stored["spec"]["restoredAt"] == format_time(restored)


async def test_what_is_yet_to_come_is_told_by_the_api_servers_time_and_not_by_this_machines() -> None:
    server, heard = Server(), list[datetime]()
    at = datetime.now(UTC) + timedelta(days=1)
    leadership = Leadership(
        server, namespace="valetkey-system", name="valetkey", identity=OURS, now=lambda: at + timedelta(hours=1)
    )
    leadership.restored_said = heard.append
    await server.write(holderIdentity=OURS, leaseTransitions=0, restoredAt=format_time(at))
    await leadership.acquire()
    assert heard == [at]
