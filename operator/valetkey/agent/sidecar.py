"""`valetkey sidecar`: how does a program get access that another container of its pod asks for?"""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

from valetkey.agent import arguments
from valetkey.agent.arguments import say
from valetkey.agent.ask import Ask
from valetkey.agent.errors import AccessError, Ended
from valetkey.agent.life import Life
from valetkey.agent.volume import Volume


def main(given: list[str]) -> int:
    """Keeps the files of an access in a directory until it is told to terminate; gives the exit code."""
    parser = arguments.parser(
        "sidecar",
        "--purpose PURPOSE --access ACCESS --directory DIR [options]",
        "Keep token, ca.crt, namespace and kubeconfig in a directory that the program mounts too, replaced all at "
        "once. They are there once the access is (probe: test -e DIR/token). SIGTERM ends it well; an access that ends "
        "otherwise takes the files with it, and the exit code is 75; 77: denied. 70: no access for another reason. "
        "2: usage.",
    )
    parser.add_argument("--directory", type=Path, required=True, help="a volume that the program mounts too")
    parser.add_argument("--again", action="store_true", help="when its time is up, ask again; policy decides again")
    options = parser.parse_args(given)
    arguments.configure_output()
    if not options.directory.is_dir():
        parser.error(f"{options.directory} is no directory: mount a volume there")
    volume = Volume(options.directory)
    try:
        volume.remove()  # what a process before this one has left is dead, and would pass for access
        ask = arguments.ask_of(options, "what the program of this pod needs")
        return arguments.code_of(asyncio.run(_keep(ask, options, volume)))
    except AccessError as error:
        say(str(error))
        return arguments.code_of(error)
    except asyncio.CancelledError:
        return 0
    finally:
        volume.remove()


async def _keep(ask: Ask, options: argparse.Namespace, volume: Volume) -> Ended:
    """Keeps one access after the other; raises CancelledError when told to terminate, and AccessError."""
    me = asyncio.current_task()
    assert me is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, me.cancel)
    while True:
        say(f"asking for {'; '.join(options.access)}")
        ended = await _one(ask, options, volume)
        say(str(ended))
        if not options.again or ended.reason != "TTLReached":
            return ended


async def _one(ask: Ask, options: argparse.Namespace, volume: Volume) -> Ended:
    """Keeps one access until it ends by itself; what it has left is replaced by the next."""
    life = Life(
        ask,
        timeout=options.timeout.total_seconds(),
        on_pending=lambda message: say(f"people are asked: {message}"),
        account_directory=options.account_directory,
        place=volume,
    )
    grant = await life.begin()
    try:
        say(f"{grant.name}: the files are in {options.directory}")
        ended = await grant.wait_ended()
    except asyncio.CancelledError:
        volume.remove()
        await life.end("Succeeded")
        raise
    await life.end("Succeeded")
    return ended
