"""Whoever asks is compared with its pod as it is now; whatever does not agree gets nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.properties.life import pod, request
from tests.properties.world import World
from valetkey import identity
from valetkey.errors import InvalidError, NotReadyError
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.identity import Identity
from valetkey.kube.api import Json
from valetkey.reasons import Reason


def asked(world: World) -> Json:
    owner = world.add("Pod", pod("one"))
    return world.add("AccessRequest", request("r", owner, "5m", "valetkey-one-a", world.now))


async def verified(world: World, body: Json) -> Identity:
    return (await identity.verify(world, AccessRequest.model_validate(body))).identity


async def test_a_pod_that_asks_for_itself_is_known_with_its_labels() -> None:
    world = World()
    who = await verified(world, asked(world))
    assert (who.namespace, who.pod_name, who.service_account, who.node_name) == ("shop", "one", "fixer", "n")
    assert who.labels == {"valetkey.dev/agent": "true"}


def requester(**change: Any) -> Callable[[World, Json], None]:
    return lambda _, body: body["spec"]["requester"].update(change)


def of_pod(**change: Any) -> Callable[[World, Json], None]:
    return lambda world, _: world.change("Pod", "shop", "one", change)


DISAGREEING: dict[str, Callable[[World, Json], Any]] = {
    "a pod that is not there": requester(podName="two"),
    "another pod of the name": requester(podUID="another"),
    "another node": requester(nodeName="m"),
    "the user of another account": requester(username="system:serviceaccount:shop:admin"),
    "an account of another namespace": requester(username="system:serviceaccount:web:fixer"),
    "an account that the pod does not run as": requester(
        username="system:serviceaccount:shop:admin", serviceAccount="admin"
    ),
    "for another pod": lambda _, body: body["spec"]["subject"].update(podUID="another"),
    "owned by nobody": lambda _, body: body["metadata"].update(ownerReferences=[]),
    "owned by another pod": lambda _, body: body["metadata"]["ownerReferences"][0].update(uid="another"),
    "a pod that is going": of_pod(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]}),
    "a pod that has finished": of_pod(status={"phase": "Failed"}),
}


@pytest.mark.parametrize("change", DISAGREEING.values(), ids=DISAGREEING)
async def test_a_request_that_does_not_agree_with_its_pod_is_no_ones(change: Callable[[World, Json], Any]) -> None:
    world = World()
    body = asked(world)
    change(world, body)
    with pytest.raises(InvalidError) as refused:
        await verified(world, body)
    assert refused.value.reason is Reason.IDENTITY_MISMATCH


async def test_a_pod_that_the_operator_does_not_watch_gets_nothing() -> None:
    world = World()
    body = asked(world)
    world.change("Pod", "shop", "one", {"metadata": {"labels": None}})
    with pytest.raises(InvalidError) as refused:
        await verified(world, body)
    assert refused.value.reason is Reason.POD_NOT_LABELLED


async def test_a_pod_without_a_node_is_waited_for() -> None:
    world = World()
    body = asked(world)
    world.change("Pod", "shop", "one", {"spec": {"nodeName": None}})
    with pytest.raises(NotReadyError):
        await verified(world, body)
