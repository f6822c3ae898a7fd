"""A time in which a guard is missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.cluster.api import Api

BINDINGS = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"


@asynccontextmanager
async def without(api: Api, guard: str) -> AsyncIterator[None]:
    """A time in which a guard is not bound."""
    path = f"{BINDINGS}/{guard}.valetkey.dev"
    status, binding = await api.get(path)
    assert status == 200, binding
    await api.gone(path)
    await asyncio.sleep(1.5)  # the API server goes on enforcing it for a second
    try:
        yield
    finally:
        metadata = {key: binding["metadata"][key] for key in ("name", "labels", "annotations")}
        await api.made(BINDINGS, {**binding, "metadata": metadata})
        await asyncio.sleep(4.5)  # enforced within a second, and trusted three seconds later
