"""`valetkey mcp`: how does a language model ask for access by itself, without ever reading a credential?

Tools of the Model Context Protocol, over standard input and output: what they answer goes to the model and to whoever
keeps its transcripts, so they say where the files are, and never what is in them. https://modelcontextprotocol.io
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from mcp.server import MCPServer
from pydantic import Field

from valetkey.agent import arguments
from valetkey.agent.ask import ask
from valetkey.agent.errors import AccessError, Denied
from valetkey.agent.grant import Grant
from valetkey.agent.life import Life

_ANSWER_WITHIN: Final = 20.0
"""Seconds: longer no tool keeps a model waiting."""
_MOST: Final = 64
"""Accesses that are known of at a time, those that are over included."""
_UNHEARD: Final = (
    "the API server has not heard yet that the task is over; the files are gone, and the access ends with its time at "
    "the latest"
)
_INSTRUCTIONS: Final = (
    "Access to systems is given for one task at a time and taken away afterwards. Ask with request_access for exactly "
    "what the task needs; run programs with the environment variable KUBECONFIG that it answers with; say "
    "release_access as soon as the task is over, with how it ended. A denial says what to change: do that or report "
    "it, and do not ask for the same again. People may have to approve: then look again with access_status."
)

Outcome = Literal["Succeeded", "Failed", "Cancelled"]


class Held:
    """One access that a model asked for."""

    def __init__(self, life: Life) -> None:
        self.life, self.waits_for = life, ""
        self.begin: asyncio.Task[Grant]
        self.released = ""
        """With which outcome."""
        self.ending: asyncio.Task[None] | None = None

    def told(self, name: str) -> dict[str, Any]:
        """What a model hears of it."""
        if self.ending is not None:
            heard = self.ending.done() and self.life.heard
            said = {} if heard else {"heard": False, "message": _UNHEARD}
            return {"access": name, "state": "released", "outcome": self.released, **said}
        if not self.begin.done():
            waits = {"waiting_for": self.waits_for} if self.waits_for else {}
            return {"access": name, "state": "waiting", **waits, "next": "look again with access_status"}
        error = self.begin.exception() if not self.begin.cancelled() else AccessError("it was taken back")
        if error is not None:
            return {"access": name, **_refused(error)}
        grant = self.begin.result()
        if (ended := grant.ended) is not None:
            return {"access": name, "state": "ended", "reason": ended.reason, "message": ended.message}
        until = {} if grant.expires_at is None else {"until": grant.expires_at.isoformat()}
        where = {"directory": str(grant.files)}
        if grant.kubeconfig is not None:
            where["KUBECONFIG"] = str(grant.kubeconfig)
        return {"access": name, "state": "granted", "request": grant.name, **where, **until}


def _refused(error: BaseException) -> dict[str, Any]:
    told: dict[str, Any] = {"state": "denied" if isinstance(error, Denied) else "failed", "message": str(error)}
    if isinstance(error, Denied):
        fields = {"reason": error.reason, "field": error.field, "allowed": error.allowed, "contact": error.contact}
        told |= {name: value for name, value in fields.items() if value is not None}
    return told


class Accesses:
    """What one model has asked for, by the names that it was told."""

    def __init__(self, account_directory: Path | None = None) -> None:
        self._account_directory = account_directory
        self._held: dict[str, Held] = {}
        self._count = 0

    async def request(self, **asked: Any) -> dict[str, Any]:
        """Asks, and says how it stands after a moment."""
        try:
            wanted = ask(asked.pop("purpose"), asked.pop("objective"), asked.pop("access"), **asked)
        except AccessError as error:
            return {"state": "failed", "message": str(error)}
        over = [name for name, held in self._held.items() if held.told(name)["state"] not in ("granted", "waiting")]
        if len(self._held) >= _MOST and not over:
            return {"state": "failed", "message": f"{_MOST} accesses are open: release some of them first"}
        if len(self._held) >= _MOST:
            await self._ending(self._held.pop(over[0]), "Cancelled")
        self._count += 1
        name = f"access-{self._count}"

        def people_are_asked(message: str) -> None:
            held.waits_for = message

        held = self._held[name] = Held(
            Life(wanted, on_pending=people_are_asked, account_directory=self._account_directory)
        )
        held.begin = asyncio.create_task(held.life.begin())
        return await self.status(name)

    async def status(self, name: str) -> dict[str, Any]:
        """How it stands, after a moment where nothing is known yet."""
        held = self._held.get(name)
        if held is None:
            return {"state": "failed", "message": f"there is no access {name}: use the name that request_access said"}
        for _ in range(int(_ANSWER_WITHIN * 10)):
            if held.begin.done() or held.waits_for:
                break
            await asyncio.wait({held.begin}, timeout=0.1)
        return held.told(name)

    async def release(self, name: str, outcome: Outcome) -> dict[str, Any]:
        """Says that the task is over, and whether that was heard; its files are no more when this returns."""
        held = self._held.get(name)
        if held is None:
            return {"state": "failed", "message": f"there is no access {name}: use the name that request_access said"}
        await asyncio.wait({self._ending(held, outcome)}, timeout=_ANSWER_WITHIN)
        return held.told(name)

    async def release_all(self) -> None:
        """The model has gone: nothing of what it had stays."""
        ending = [self._ending(held, "Cancelled") for held in self._held.values()]
        await asyncio.gather(*ending, return_exceptions=True)

    def _ending(self, held: Held, outcome: Outcome) -> asyncio.Task[None]:
        """Ends it with that outcome, unless it is ended already."""
        if held.ending is None:
            held.released = outcome
            held.ending = asyncio.create_task(self._end(held, outcome))
        return held.ending

    async def _end(self, held: Held, outcome: Outcome) -> None:
        held.begin.cancel()  # which takes back what was not granted yet
        await asyncio.gather(held.begin, return_exceptions=True)
        if held.life.open:
            await held.life.end(outcome)


def server(accesses: Accesses) -> MCPServer:
    """The server with its three tools."""

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await accesses.release_all()

    made = MCPServer("valetkey", instructions=_INSTRUCTIONS, lifespan=lifespan, log_level="WARNING")

    @made.tool(structured_output=True)
    async def request_access(
        purpose: Annotated[str, Field(description="A purpose that a policy knows, such as remediation.")],
        objective: Annotated[str, Field(description="What the task is to achieve; people and the log read it.")],
        access: Annotated[
            str | dict[str, Any],
            Field(
                description="Exactly what is needed, as `shop: get,patch deployments.apps/checkout; web: get pods`; "
                "or what a denial says is `allowed`, as it is."
            ),
        ],
        parameters: Annotated[dict[str, Any] | None, Field(description="The purpose's parameters.")] = None,
        ttl: Annotated[str | None, Field(description="For how long, such as 5m.")] = None,
        task: Annotated[str | None, Field(description="Your own word for the task.")] = None,
    ) -> dict[str, Any]:
        """Asks for access for one task. Answers with a KUBECONFIG file, whom it waits for, or why it was denied."""
        return await accesses.request(
            purpose=purpose, objective=objective, access=access, parameters=parameters, ttl=ttl, task=task
        )

    @made.tool(structured_output=True)
    async def access_status(
        access: Annotated[str, Field(description="The name that request_access said.")],
    ) -> dict[str, Any]:
        """Says whether access was granted, waits for people, was denied, or has ended."""
        return await accesses.status(access)

    @made.tool(structured_output=True)
    async def release_access(
        access: Annotated[str, Field(description="The name that request_access said.")],
        outcome: Annotated[Outcome, Field(description="How the task ended.")] = "Succeeded",
    ) -> dict[str, Any]:
        """Ends access as soon as its task is over."""
        return await accesses.release(access, outcome)

    return made


def main(given: list[str]) -> int:
    """Serves on standard input and output until it is closed."""
    parser = argparse.ArgumentParser(
        prog="valetkey mcp",
        allow_abbrev=False,
        description="Tools by which a language model asks for access: standard input and output.",
    )
    arguments.add_account_directory(parser)
    options = parser.parse_args(given)
    arguments.configure_output()
    asyncio.run(_serve(Accesses(options.account_directory)))
    return 0


async def _serve(accesses: Accesses) -> None:
    """Until the client closes, or whoever runs it tells it to terminate; either way nothing of what it had stays."""
    terminating: list[asyncio.Task[None]] = []

    async def terminate(number: int) -> None:
        await accesses.release_all()
        # The thread that reads standard input waits for a line that does not come.
        os._exit(arguments.SIGNAL + number)

    def told(number: int) -> None:
        if not terminating:
            terminating.append(asyncio.create_task(terminate(number)))

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, told, number)
    await server(accesses).run_stdio_async()
