"""`valetkey run`: how does a program that knows nothing of this get access for as long as it runs?"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
from asyncio.subprocess import Process
from contextlib import suppress
from typing import Final

from valetkey.agent import arguments
from valetkey.agent.arguments import say
from valetkey.agent.ask import Ask
from valetkey.agent.errors import AccessError
from valetkey.agent.grant import Grant
from valetkey.agent.life import Life

_PASSED_ON: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_FROM_TERMINAL: Final = (signal.SIGINT, signal.SIGQUIT)
_TELL_EVERY: Final = 15.0


def main(given: list[str]) -> int:
    """Runs a command with access and gives its exit code."""
    parser = arguments.parser(
        "run",
        "--purpose PURPOSE --access ACCESS [options] -- COMMAND [ARGUMENT ...]",
        "Run a command with access: KUBECONFIG is set while it runs. Its exit code is passed on, 128 and more for a "
        "signal. 77: denied. 75: not granted in time. 70: no access for another reason. 2: usage. 126, 127: the "
        "command cannot be run.",
    )
    split = given.index("--") if "--" in given else len(given)
    options, command = parser.parse_args(given[:split]), given[split + 1 :]
    if not command:
        parser.error("write the command after --")
    arguments.configure_output()
    if shutil.which(command[0]) is None:
        say(f"{command[0]} cannot be run; nothing was asked")
        return arguments.NOT_EXECUTABLE if os.path.exists(command[0]) else arguments.NOT_FOUND
    try:
        # Only the program is named: its arguments may be secret, and objectives are on record.
        ask = arguments.ask_of(options, f"run {os.path.basename(command[0])}")
        return asyncio.run(_run(ask, options, command))
    except AccessError as error:
        say(str(error))
        return arguments.code_of(error)


async def _run(ask: Ask, options: argparse.Namespace, command: list[str]) -> int:
    relay = _Relay()
    telling: list[asyncio.Task[None]] = []

    def people_are_asked(message: str) -> None:
        say(f"people are asked: {message}")
        telling.append(asyncio.create_task(_tell_again(f"people have not spoken yet: {message}")))

    say(f"asking for {'; '.join(options.access)}")
    timeout = options.timeout.total_seconds()
    life = Life(ask, timeout=timeout, on_pending=people_are_asked, account_directory=options.account_directory)
    try:
        grant = await life.begin()
    except asyncio.CancelledError:
        return arguments.SIGNAL + min(relay.came)
    finally:
        for task in telling:
            task.cancel()
    outcome = "Failed"
    ending = asyncio.create_task(_tell_end(grant))
    try:
        relay.child = await asyncio.create_subprocess_exec(*command, env=grant.environ())
        status = await relay.child.wait()
        outcome = _outcome(status, relay.came)
    except asyncio.CancelledError:  # before the command began
        outcome = "Cancelled"
        return arguments.SIGNAL + min(relay.came)
    except OSError as error:
        say(f"{command[0]} cannot be run: {error.strerror}")
        return arguments.NOT_EXECUTABLE
    finally:
        ending.cancel()
        await life.end(outcome)
    return status if status >= 0 else arguments.SIGNAL - status


class _Relay:
    """Passes signals on to the command; before there is one, they end the waiting."""

    def __init__(self) -> None:
        self.child: Process | None = None
        self.came: set[int] = set()
        self._waiting = asyncio.current_task()
        for number in _PASSED_ON:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                asyncio.get_running_loop().add_signal_handler(number, self._pass_on, number)

    def _pass_on(self, number: int) -> None:
        self.came.add(number)
        if self.child is None and self._waiting is not None:
            self._waiting.cancel()
        elif self.child is not None and not (number in _FROM_TERMINAL and _in_foreground()):
            with suppress(ProcessLookupError):
                self.child.send_signal(number)


def _in_foreground() -> bool:
    """Whether a terminal sends its signals to this process, and so to the command as well."""
    with suppress(OSError):
        return os.tcgetpgrp(0) == os.getpgrp()
    return False


def _outcome(status: int, came: set[int]) -> str:
    if any(status in (-number, arguments.SIGNAL + number) for number in came):
        return "Cancelled"
    return "Succeeded" if status == 0 else "Failed"


async def _tell_end(grant: Grant) -> None:
    ended = await grant.wait_ended()
    say(f"{ended}; the command goes on without it")


async def _tell_again(text: str) -> None:
    while True:
        await asyncio.sleep(_TELL_EVERY)
        say(text)
