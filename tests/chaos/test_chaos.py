"""The short form of the story: every fault once, on a control plane of its own."""

from __future__ import annotations

import pytest

from tests.chaos.__main__ import show
from tests.chaos.story import BEFORE_RESTORE, CLOCK, FAILING, KILLED, RESTORE, Outcome, tell
from tests.chaos.world import ChaosWorld
from tests.cluster.local.cluster import Cluster

SEED = 1
LASTS = 240.0
"""Seconds that the short form may take."""


@pytest.mark.timeout(900)
async def test_no_credential_is_leaked_whatever_happens_to_the_operator_and_its_cluster(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    if cluster.source != "built":
        pytest.skip("chaos kills its own control plane, which only the built cluster has the programs for")

    def say(text: str) -> None:
        with capsys.disabled():
            print(f"chaos: {text}")

    async with ChaosWorld(say, seed=SEED) as world:
        outcome = await tell(world, grants=0)
    with capsys.disabled():
        show(outcome)
    _check(outcome)


def _check(outcome: Outcome) -> None:
    assert outcome.leaked == []
    assert outcome.seconds <= LASTS
    assert outcome.kills > 5
    assert outcome.faults > 20, "eight phases, and what the proxy has done to requests"
    grants = {row.phase: row.grants for row in outcome.rows}
    assert grants[RESTORE] >= BEFORE_RESTORE
    # While the API server is away little can end but by its time: only the others are sure to have some.
    assert min(grants.get(phase, 0) for phase in (KILLED, FAILING, CLOCK)) > 0, "so few prove nothing"
    assert outcome.expired > 0, "no watch had to begin anew"
