"""The sweep: what belongs to no TaskGrant goes, with a record; what lives, or is not ours, is not touched."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from tests.cluster.api import until
from tests.properties.life import GUARD, Process, pod, policy, request
from tests.properties.world import World
from valetkey.controller import sweep
from valetkey.controller.sweep import Sweep
from valetkey.errors import UnavailableError
from valetkey.issuers.base import Found
from valetkey.issuers.kubernetes import KubernetesIssuer
from valetkey.kinds.base import REQUEST_LABEL
from valetkey.kube.api import ApiError, Json
from valetkey.reasons import Reason

OWNER = "9d8f0000-0000-4000-8000-000000000000"


async def granted() -> tuple[World, Process]:
    world = World()
    world.add("ValidatingAdmissionPolicy", {**GUARD})
    world.add("Namespace", {"metadata": {"name": "shop", "namespace": ""}})
    world.add("AgentPolicy", policy(15))
    world.now += timedelta(minutes=1)
    owner = world.add("Pod", pod("one"))
    world.add("AccessRequest", request("r", owner, "2m", "valetkey-one-a", world.now))
    process = Process(world)
    await process.watch()
    await process.work()
    return world, process


def orphan(world: World, kind: str, namespace: str, name: str, owner: str = OWNER) -> tuple[str, str, str]:
    world.add(kind, {"metadata": {"name": name, "namespace": namespace, "labels": {REQUEST_LABEL: owner}}})
    return kind, namespace, name


def reasons(world: World) -> list[str]:
    return [record["reason"] for record in world.records if record["reason"].startswith("Orphan")]


async def test_every_kind_of_orphan_is_removed_with_a_record_before_and_after() -> None:
    world, process = await granted()
    before = set(world.objects)
    orphan(world, "ServiceAccount", "valetkey-grants", f"valetkey-{OWNER}")
    orphan(world, "ServiceAccount", "valetkey-grants", f"valetkey-t-{OWNER}")
    orphan(world, "Job", "valetkey-grants", f"valetkey-{OWNER}")
    orphan(world, "Role", "shop", f"valetkey-{OWNER}-0")
    orphan(world, "RoleBinding", "shop", f"valetkey-{OWNER}-12")
    orphan(world, "ClusterRole", "", f"valetkey-{OWNER}-1")
    orphan(world, "ClusterRoleBinding", "", f"valetkey-{OWNER}-1")
    await process.sweep.sweep()
    assert set(world.objects) == before
    assert sorted(reasons(world)) == ["OrphanFound"] * 7 + ["OrphanRemoved"] * 7
    assert {record["request_uid"] for record in world.records if record["reason"] == "OrphanRemoved"} == {OWNER}


@pytest.mark.parametrize(
    ("kind", "namespace", "name"),
    [
        ("ServiceAccount", "valetkey-grants", "somebody"),
        ("ServiceAccount", "shop", f"valetkey-{OWNER}"),
        ("Job", "shop", f"valetkey-{OWNER}"),
        ("Job", "valetkey-grants", f"valetkey-t-{OWNER}"),
        ("Role", "shop", f"valetkey-{OWNER}x-0"),
        ("Role", "shop", f"valetkey-{OWNER}-mine"),
        ("Role", "shop", f"valetkey-{OWNER}"),
        ("Role", "shop", f"valetkey-{OWNER}-{'0' * 300}"),
        ("Role", "elsewhere", f"valetkey-{OWNER}-0"),
        ("RoleBinding", "shop", "valetkey-.*-0"),
    ],
)
async def test_what_is_not_provably_ours_is_not_touched(kind: str, namespace: str, name: str) -> None:
    world, process = await granted()
    place = orphan(world, kind, namespace, name)
    await process.sweep.sweep()
    assert place in world.objects
    assert not reasons(world)


async def test_what_belongs_to_a_grant_of_a_namespace_that_is_not_served_is_not_touched() -> None:
    world, process = await granted()
    place = orphan(world, "RoleBinding", "shop", f"valetkey-{OWNER}-0")
    orphan(world, "TaskGrant", "elsewhere", "r")
    await process.sweep.sweep()
    assert place in world.objects
    assert not reasons(world)


async def test_a_grant_that_begins_while_the_sweep_looks_keeps_what_it_was_given() -> None:
    for at in range(1, 14):
        world, process = await granted()
        owner = world.add("Pod", pod("two"))
        world.add("AccessRequest", request("s", owner, "2m", "valetkey-two-a", world.now))

        async def begins(process: Process = process) -> None:
            await process.watch()
            await process.work()

        orphan(world, "ServiceAccount", "valetkey-grants", f"valetkey-{OWNER}")
        world.lists, world.before_list = 0, (at, begins)
        await process.sweep.sweep()
        assert len(world.of("RoleBinding")) == len(world.of("TaskGrant")), at
        assert {record["request_uid"] for record in world.records if record["reason"] == "OrphanFound"} <= {OWNER}


async def test_a_grant_that_begins_and_ends_while_the_sweep_looks_was_no_orphan() -> None:
    world, process = await granted()
    place = orphan(world, "RoleBinding", "shop", f"valetkey-{OWNER}-0")

    async def ends() -> None:
        world.remove(*place)

    world.lists, world.before_list = 0, (7, ends)
    await process.sweep.sweep()
    assert not reasons(world)


async def test_an_object_made_again_under_the_name_is_looked_at_anew() -> None:
    world, process = await granted()
    place = orphan(world, "RoleBinding", "shop", f"valetkey-{OWNER}-0")

    async def again() -> None:
        world.remove(*place)
        orphan(world, *place)

    world.lists, world.before_list = 0, (8, again)
    await process.sweep.sweep()
    assert place in world.objects
    await process.sweep.sweep()
    assert place not in world.objects


async def test_one_that_cannot_be_removed_keeps_no_other_from_going() -> None:
    class Stubborn(World):
        async def delete(self, path: str, *, uid: str) -> Json:
            if "/rolebindings/" in path:
                raise ApiError(403, "Forbidden", "no rights there")
            return await super().delete(path, uid=uid)

    world = Stubborn()
    process = Process(world)
    stuck = orphan(world, "RoleBinding", "shop", f"valetkey-{OWNER}-0")
    other = orphan(world, "ServiceAccount", "valetkey-grants", f"valetkey-{OWNER}")
    await process.sweep.sweep()
    assert stuck in world.objects
    assert other not in world.objects
    assert sorted(reasons(world)) == ["OrphanFound", "OrphanFound", "OrphanRemoved"]
    await process.sweep.sweep()
    assert sorted(reasons(world)) == ["OrphanFound", "OrphanFound", "OrphanRemoved"], "the log tells of it once"


async def test_a_log_that_cannot_be_written_holds_up_no_removal() -> None:
    class Silent(World):
        async def write(self, reason: str, **fields: object) -> None:
            raise UnavailableError(None, "disk full")  # type: ignore[arg-type]

    world = Silent()
    process = Process(world)
    place = orphan(world, "ServiceAccount", "valetkey-grants", f"valetkey-{OWNER}")
    await process.sweep.sweep()
    assert place not in world.objects


@pytest.mark.parametrize("owner", ["x", "9d8f", "9D8F0000-0000-4000-8000-000000000000", "valetkey"])
async def test_a_label_that_is_no_uid_makes_nothing_ours(owner: str) -> None:
    world, process = await granted()
    place = orphan(world, "Role", "shop", f"valetkey-{owner}-0", owner)
    long = orphan(world, "Role", "shop", f"valetkey-{owner}-{'0' * 300}", owner)
    await process.sweep.sweep()
    assert {place, long} <= set(world.objects)
    assert not reasons(world)


async def test_a_surprise_in_one_sweep_ends_no_other() -> None:
    class Surprising(World):
        def list(self, path: str, *, metadata_only: bool = False, selector: str = "") -> AsyncIterator[Json]:
            if not self.lists:
                self.lists += 1
                raise ValueError("what nobody thought of")
            return super().list(path, metadata_only=metadata_only, selector=selector)

    world = Surprising()
    process = Process(world)
    place = orphan(world, "ServiceAccount", "valetkey-grants", f"valetkey-{OWNER}")
    sweeping = asyncio.create_task(Sweep(process.backends, every=timedelta(milliseconds=1)).keep_sweeping())

    async def swept() -> bool:
        return place not in world.objects

    await until(swept, "the next sweep", seconds=5)
    sweeping.cancel()
    await asyncio.gather(sweeping, return_exceptions=True)


async def test_what_an_earlier_leader_had_on_its_way_is_swept_soon_after_the_first_sweep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sweep, "SETTLES_AFTER", timedelta(milliseconds=20))
    world, process = await granted()
    before = set(world.objects)
    late = Sweep(process.backends, every=timedelta(hours=1))
    first, sweeping = asyncio.Event(), late.sweep

    async def swept_once() -> None:
        await sweeping()
        first.set()

    monkeypatch.setattr(late, "sweep", swept_once)
    keeping = asyncio.create_task(late.keep_sweeping())
    await first.wait()
    orphan(world, "ServiceAccount", "valetkey-grants", f"valetkey-{OWNER}")
    orphan(world, "RoleBinding", "shop", f"valetkey-{OWNER}-0")

    async def gone() -> bool:
        return set(world.objects) == before

    await until(gone, "what came late to be swept", seconds=5)
    assert reasons(world).count("OrphanRemoved") == 2
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


@pytest.mark.parametrize("error", [ValueError("a surprise"), UnavailableError(Reason.BACKEND_UNAVAILABLE, "down")])
async def test_an_issuer_whose_backend_is_away_keeps_no_other_from_being_swept(error: Exception) -> None:
    class Away(KubernetesIssuer):
        async def found(self) -> AsyncIterator[Found]:
            raise error
            yield

    world = World()
    process = Process(world)
    place = orphan(world, "ServiceAccount", "valetkey-grants", f"valetkey-{OWNER}")
    (ours,) = process.backends.issuers.values()
    away = Away.__new__(Away)
    sweep = Sweep(dataclasses.replace(process.backends, issuers={"away": away, "kubernetes": ours}), every=timedelta(1))
    await sweep.sweep()
    assert place not in world.objects


async def test_what_was_made_again_under_an_orphans_name_is_not_removed_with_it() -> None:
    class Quick(World):
        async def delete(self, path: str, *, uid: str) -> Json:
            answer = await super().delete(path, uid=uid)
            orphan(self, "RoleBinding", "shop", f"valetkey-{OWNER}-0")
            return answer

    world = Quick()
    process = Process(world)
    place = orphan(world, "RoleBinding", "shop", f"valetkey-{OWNER}-0")
    before = world.objects[place]["metadata"]["uid"]
    await process.sweep.sweep()
    assert world.objects[place]["metadata"]["uid"] != before
    assert reasons(world) == ["OrphanFound", "OrphanRemoved"]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands are as many as hundreds where what is looked at together is fewer by as much."""
    monkeypatch.setattr(sweep, "LOOKED_AT", 50)
    monkeypatch.setattr(sweep, "ONE_BY_ONE", 5)


def of_a_tenant(world: World, count: int) -> None:
    """Roles that nobody can tell from those of grants."""
    for number in range(count):
        owner = f"{number:08d}-9d8f-4000-8000-000000000000"
        orphan(world, "Role", "shop", f"valetkey-{owner}-0", owner)


@pytest.mark.usefixtures("few")
async def test_of_thousands_that_a_tenant_makes_all_go_and_the_log_tells_of_a_few_and_of_their_number() -> None:
    world, process = await granted()
    before = set(world.objects)
    of_a_tenant(world, 500)
    await process.sweep.sweep()
    assert set(world.objects) == before
    assert sorted(reasons(world)) == ["OrphanFound"] * 5 + ["OrphanRemoved"] * 6
    message = f"{500 - 5} more that belonged to no TaskGrant"
    assert world.records[-1] == {"reason": "OrphanRemoved", "message": message}
    await process.sweep.sweep()
    assert len(reasons(world)) == 11, "it is told once"


@pytest.mark.usefixtures("few")
async def test_what_of_the_log_is_kept_for_endings_no_tenant_fills() -> None:
    world, process = await granted()
    before = set(world.objects)
    of_a_tenant(world, 500)
    world.log_is_nearly_full = True
    await process.sweep.sweep()
    assert set(world.objects) == before
    assert not reasons(world)
    world.log_is_nearly_full = False
    await process.sweep.sweep()
    assert world.records[-1]["message"] == "500 more that belonged to no TaskGrant"


@pytest.mark.usefixtures("few")
async def test_a_tenants_thousands_are_not_all_in_memory_and_hide_nothing_elsewhere() -> None:
    class Noting(World):
        deleted: tuple[str, ...] = ()

        async def delete(self, path: str, *, uid: str) -> Json:
            self.deleted += (path,)
            return await super().delete(path, uid=uid)

    world = Noting()
    process = Process(world)
    of_a_tenant(world, 150)
    place = orphan(world, "ServiceAccount", "valetkey-grants", f"valetkey-{OWNER}")
    await process.sweep.sweep()
    assert place not in world.objects
    assert world.deleted.index(f"/api/v1/namespaces/valetkey-grants/serviceaccounts/valetkey-{OWNER}") == 50


@pytest.mark.usefixtures("few")
async def test_thousands_that_cannot_be_removed_are_not_tried_again_before_the_next_sweep() -> None:
    class Stubborn(World):
        tries = 0

        async def delete(self, path: str, *, uid: str) -> Json:
            self.tries += 1
            raise ApiError(403, "Forbidden", "no rights there")

    world = Stubborn()
    world.add("Namespace", {"metadata": {"name": "shop", "namespace": ""}})
    of_a_tenant(world, 100)
    await Process(world).sweep.sweep()
    assert world.tries == 50
    assert reasons(world) == ["OrphanFound"] * 5
