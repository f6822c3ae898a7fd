"""The short form of the story: every fault once, on a control plane of its own."""

from __future__ import annotations

import pytest

from tests.chaos.__main__ import show
from tests.chaos.story import Outcome, tell
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
    assert outcome.grants > 100, "so few prove nothing"
    assert outcome.kills > 5
    assert outcome.expired > 0, "no watch had to begin anew"
