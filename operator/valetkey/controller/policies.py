"""Whether each policy can be used, shown on the policy."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from valetkey.controller.status import Say, conditions
from valetkey.kinds.base import Condition, format_seconds
from valetkey.kube import paths
from valetkey.kube.api import Api, ApiError
from valetkey.policy.compile import CompiledPolicy, Uncompiled
from valetkey.policy.reach import reaches
from valetkey.reasons import Reason

_logger = logging.getLogger(__name__)


class PolicyStatuses:
    """Writes the Ready condition of policies, whenever there is something else to say."""

    def __init__(self, api: Api, *, served: Iterable[str], clock: Callable[[], datetime]) -> None:
        """`served` are the namespaces whose agents are served."""
        self._api = api
        self._served = frozenset(served)
        self._clock = clock
        self._wanted: dict[str, tuple[CompiledPolicy | Uncompiled, Say]] = {}
        self._shown: dict[str, tuple[str, Condition]] = {}
        """By name: the policy's uid and what it shows."""
        self._changed = asyncio.Event()

    def show(
        self, policies: Iterable[CompiledPolicy | Uncompiled], namespaces: Mapping[str, Mapping[str, str]]
    ) -> None:
        """Takes the policies and the namespaces' labels as they are now; returns at once."""
        self._wanted = {one.policy.metadata.name: (one, self._says(one, namespaces)) for one in policies}
        self._changed.set()

    async def run(self) -> None:
        """Writes what is to be shown, for ever."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for one, says in list(self._wanted.values()):
                await self._write(one, says)

    def _says(self, one: CompiledPolicy | Uncompiled, namespaces: Mapping[str, Mapping[str, str]]) -> Say:
        if isinstance(one, Uncompiled):
            return one.reason, one.message
        spec = one.policy.spec
        message = "it is in use" if spec.enforced else "it is in Audit mode and takes part in no decision"
        if spec.until is not None:
            message += f", until {format_seconds(spec.until)}"
        if not reaches(one.policy, self._served, namespaces):
            message += "; it selects no agent namespace that this operator serves: look at spec.subjects"
        return Reason.POLICY_COMPILED, message

    async def _write(self, one: CompiledPolicy | Uncompiled, says: Say) -> None:
        metadata = one.policy.metadata
        uid, shown = self._shown.get(metadata.name, ("", None))
        known = (shown,) if shown is not None and uid == metadata.uid else ()
        (ready,) = conditions(known, [says], self._clock())
        ready = ready.model_copy(update={"observed_generation": metadata.generation})
        if known == (ready,):
            return
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
            self._shown[metadata.name] = (metadata.uid, ready)
