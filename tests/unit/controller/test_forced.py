"""What goes by force is on record from when somebody says so, however its end is seen."""

from __future__ import annotations

from tests.unit.controller.test_many_ends import granted
from tests.unit.controller.test_many_ends import names as names_of
from valetkey.controller.intake import Intake
from valetkey.controller.queue import Queue
from valetkey.kinds.base import FORCED_BECAUSE, FORCED_BY
from valetkey.kube.api import Json


async def test_a_grant_that_is_let_go_by_force_is_told_of_once_as_soon_as_it_says_so() -> None:
    world, process = await granted(1, Queue())
    told: list[Json] = []
    intake = Intake(process.cache, lambda _: None, forced=told.append)
    (body,) = world.of("TaskGrant")
    intake.grant(body)
    assert not told
    annotations = {FORCED_BY: "ann", FORCED_BECAUSE: "gone for good"}
    world.change("TaskGrant", "shop", names_of(1)[0], {"metadata": {"annotations": annotations}})
    (body,) = world.of("TaskGrant")
    intake.grant(body)
    intake.grant(body)
    intake.let_go_by_force(body)
    assert [one["metadata"]["annotations"] for one in told] == [annotations]


async def test_a_grant_whose_force_was_not_seen_before_it_went_is_told_of_then() -> None:
    world, process = await granted(1, Queue())
    told: list[Json] = []
    intake = Intake(process.cache, lambda _: None, forced=told.append)
    (body,) = world.of("TaskGrant")
    body["metadata"]["annotations"] = {FORCED_BY: "ann", FORCED_BECAUSE: "gone for good"}
    intake.let_go_by_force(body)
    assert len(told) == 1
