"""What the attacks on several guards begin with."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.cluster.api import (
    OPERATOR,
    Api,
    Caller,
    Json,
    unique,
)
from tests.cluster.guards.attack import (
    REQUESTS,
    SECRETS,
    delivered,
    everything,
)
from tests.cluster.world import World


@pytest.fixture
async def asked(api: Api, world: World) -> str:
    """The path of a live request of the asker."""
    made = await api.made(REQUESTS, world.request("asker"), by=world.tokens["asker"])
    return f"{REQUESTS}/{made['metadata']['name']}"


@pytest.fixture
async def delivery(api: Api, world: World, asked: str) -> AsyncIterator[Json]:
    """A delivered Secret."""
    _, request = await api.get(asked)
    body = delivered(request["metadata"]["uid"], unique("valetkey-asker"), request["metadata"]["name"])
    yield await api.made(SECRETS, body, by=world.tokens["operator"])
    await api.delete(f"{SECRETS}/{body['metadata']['name']}")


@pytest.fixture
def loose() -> Caller:
    """The operator, whom RBAC refuses nothing: only the leash holds it."""
    return everything(OPERATOR)
