"""Whether each policy can be used, shown on the policy."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import datetime

from valetkey.controller.status import conditions
from valetkey.kube import paths
from valetkey.kube.api import Api, ApiError
from valetkey.policy.compile import CompiledPolicy, Uncompiled
from valetkey.reasons import Reason

_logger = logging.getLogger(__name__)


class PolicyStatuses:
    """Writes the Ready condition of policies, once for each version of a policy."""

    def __init__(self, api: Api, *, clock: Callable[[], datetime]) -> None:
        self._api = api
        self._clock = clock
        self._wanted: dict[str, CompiledPolicy | Uncompiled] = {}
        self._shown: dict[str, tuple[str, int]] = {}
        self._changed = asyncio.Event()

    def show(self, policies: Iterable[CompiledPolicy | Uncompiled]) -> None:
        """Takes the policies as they are now; returns at once."""
        self._wanted = {one.policy.metadata.name: one for one in policies}
        self._changed.set()

    async def run(self) -> None:
        """Writes what is to be shown, for ever."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for name, one in list(self._wanted.items()):
                if self._shown.get(name) != (one.policy.metadata.uid, one.policy.metadata.generation):
                    await self._write(one)

    async def _write(self, one: CompiledPolicy | Uncompiled) -> None:
        metadata = one.policy.metadata
        says = (one.reason, one.message) if isinstance(one, Uncompiled) else (Reason.POLICY_COMPILED, "it is in use")
        (ready,) = conditions((), [says], self._clock())
        ready = ready.model_copy(update={"observed_generation": metadata.generation})
        body = {"metadata": {"uid": metadata.uid}, "status": {"conditions": [ready.to_api()]}}
        try:
            await self._api.patch(f"{paths.item('AgentPolicy', None, metadata.name)}/status", body)
        except ApiError as error:
            _logger.warning("AgentPolicy %s: status not shown: %s", metadata.name, error)
            if error.not_found or error.conflict:
                return
            await asyncio.sleep(1)
            self._changed.set()
        else:
            self._shown[metadata.name] = (metadata.uid, metadata.generation)
