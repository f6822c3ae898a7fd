"""How does an agent get access for one task?

with valetkey.access("remediation", "restart checkout", "shop: get,patch deployments.apps/checkout") as grant:
    subprocess.run(["kubectl", "rollout", "restart", "deploy/checkout", "-n", "shop"], env=grant.environ())
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from valetkey.agent import durations, signals
from valetkey.agent.ask import ask
from valetkey.agent.blocking import Loop
from valetkey.agent.errors import Ended, InvalidAccess
from valetkey.agent.grant import Grant
from valetkey.agent.life import Life

_log: Final = logging.getLogger("valetkey")


class Access:
    """Access for one task, for as long as the block lasts: `with`, or `async with`."""

    def __init__(self, begin: Callable[[], Life]) -> None:
        self._begin = begin
        self._life = begin()
        self._loop: Loop | None = None
        self._grant: Grant | None = None
        self._process = 0
        """That which has entered it."""

    async def __aenter__(self) -> Grant:
        """Asks and waits until the access is there; raises AccessError."""
        self._enter()
        signals.hold()
        self._life = self._begin()
        try:
            self._grant = await self._life.begin()
        except BaseException:
            self._leave()
            raise
        return self._grant

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Says how the task ended; the access is no more."""
        if self._process != os.getpid():
            return  # a copy of the process that has the access
        self._note(error)
        try:
            with signals.leaving():
                await self._life.end(_outcome(error))
        finally:
            self._leave()

    def __enter__(self) -> Grant:
        """Asks and waits until the access is there; raises AccessError."""
        self._enter()
        signals.hold()
        self._life = self._begin()
        try:
            self._loop = Loop()
            self._grant = self._loop.run(self._life.begin())
        except BaseException:
            try:
                if self._loop is not None and self._life.open:  # interrupted in the moment that it was granted
                    self._loop.run_to_its_end(self._life.end("Cancelled"))
            finally:
                self._leave()
            raise
        return self._grant

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Says how the task ended; the access is no more."""
        if self._process != os.getpid() or self._loop is None:
            return
        self._note(error)
        try:
            with signals.leaving():
                self._loop.run_to_its_end(self._life.end(_outcome(error)))
        finally:
            self._leave()

    def _enter(self) -> None:
        """Once at a time: who leaves it would end another's access."""
        if self._process == os.getpid():
            raise RuntimeError("this access is open already: call valetkey.access again for another")
        self._process = os.getpid()

    def _leave(self) -> None:
        """It may be entered again, and SIGTERM is what it was before, whatever goes wrong."""
        self._process = 0
        loop, self._loop = self._loop, None
        try:
            if loop is not None:
                loop.close()
        finally:
            signals.release()

    def _note(self, error: BaseException | None) -> None:
        """What failed may have failed for the access had ended."""
        ended = self._grant.ended if self._grant is not None else None
        if ended is None or isinstance(error, Ended):
            return
        if error is None:
            _log.info("the access had ended before the task did: %s: %s", ended.reason, ended.message)
        else:
            error.add_note(f"the access had ended: {ended.reason}: {ended.message}")


def access(
    purpose: str,
    objective: str,
    access: str | Mapping[str, Any],
    *,
    parameters: Mapping[str, Any] | None = None,
    task: str | None = None,
    ttl: timedelta | str | None = None,
    timeout: timedelta | str | float = 60,
    wait_for_approval: bool = True,
    parent: Mapping[str, str] | None = None,
    delegation: Mapping[str, Any] | None = None,
    on_pending: Callable[[str], None] | None = None,
    account_directory: Path | str | None = None,
    state_directory: Path | str | None = None,
) -> Access:
    """Access for one task, for as long as the block lasts that it is entered for.

    `access` is one line, such as `shop: get,patch deployments.apps/checkout`, or a mapping as `spec.access` has it, or
    that mapping as text: what a denial says is `allowed`, pasted as it is.
    `timeout` is for how long to wait where nobody has to approve, in seconds, as a timedelta or such as `60s`; people
    take their time, until the request expires, and `on_pending` is called with whom it waits for. With
    `wait_for_approval=False` ApprovalPending is raised instead, and a later call for the same task finds the request.
    `parent` is `grant.parent` of who handed on the work; `delegation` is what this task hands on. `account_directory`
    is where the ServiceAccount is mounted, and `state_directory` where keys are kept (or VALETKEY_ACCOUNT_DIRECTORY and
    VALETKEY_STATE_DIRECTORY say so). Raises InvalidAccess; entered, any AccessError.
    """
    asked = ask(
        *(purpose, objective, access),
        parameters=parameters,
        task=task,
        ttl=ttl,
        parent=parent,
        delegation=delegation,
    )
    begin = functools.partial(
        Life,
        asked,
        timeout=_seconds(timeout),
        wait_for_approval=wait_for_approval,
        on_pending=on_pending,
        account_directory=None if account_directory is None else Path(account_directory),
        state_directory=state_directory,
    )
    return Access(begin)


def _seconds(timeout: timedelta | str | float) -> float:
    try:
        length = durations.read(timeout) if isinstance(timeout, str) else timeout
        return length.total_seconds() if isinstance(length, timedelta) else float(length)
    except (TypeError, ValueError) as error:
        raise InvalidAccess(f"timeout: {error}") from error


def _outcome(error: BaseException | None) -> str:
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "Succeeded"
    if isinstance(error, SystemExit) and error.code == signals.TERMINATED:
        return "Cancelled"
    return "Cancelled" if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit)) else "Failed"
