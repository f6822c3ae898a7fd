"""When a pod has finished, as its kubelet tells it."""

from __future__ import annotations

import pytest

from tests.properties.life import pod
from valetkey.kube.api import Json
from valetkey.kube.pods import parse


def ready(reason: str | None, status: str = "False") -> Json:
    """A running pod with one condition."""
    return {"phase": "Running", "conditions": [{"type": "Ready", "status": status, "reason": reason}]}


@pytest.mark.parametrize(
    ("status", "finished"),
    [
        ({}, False),
        ({"phase": "Pending"}, False),
        ({"phase": "Running"}, False),
        ({"phase": "Unknown"}, False),
        ({"phase": "Succeeded"}, True),
        ({"phase": "Failed"}, True),
        (ready("PodCompleted"), True),
        (ready("PodFailed"), True),
        (ready("ContainersNotReady"), False),
        (ready(None, "True"), False),
        (ready("PodCompleted", "True"), False),
        ({"phase": "Running", "conditions": None}, False),
        ({"conditions": [{"type": "x.io/y", "status": "False", "reason": "PodFailed"}]}, False),
    ],
)
def test_a_pod_has_finished_when_its_kubelet_says_so_first(status: Json, finished: bool) -> None:
    metadata = {**pod("one")["metadata"], "uid": "u"}
    assert parse({**pod("one"), "metadata": metadata, "status": status}).finished is finished
