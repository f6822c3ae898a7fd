"""`valetkey uninstall`: what the chart runs before it goes, so that nothing it granted outlives it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic
from typing import Annotated, Final

import typer

from valetkey.cli.taskgrant import expiry, held_up
from valetkey.kinds.base import REVOKE_FINALIZER
from valetkey.kube import paths
from valetkey.kube.api import Api, ApiError, Json
from valetkey.kube.client import Client
from valetkey.kube.clock import Clock
from valetkey.kube.session import open_session, server

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
QUIET: Final = 13.0
"""Seconds without a grant, and there will be no other: an operator whose watches are broken goes by the guards that it
read at most ten seconds ago, and what was being decided then is through three seconds later."""
_PAUSE: Final = 0.5


def uninstall(
    guard: Annotated[str, typer.Option(help="A guard's binding: once it is gone, the operator grants nothing new.")],
    within: Annotated[float, typer.Option(help="Seconds that the operator has to revoke.")] = 120,
) -> None:
    """End every grant and wait for its revocation; the chart runs this, in a pod, before it is uninstalled."""
    left = asyncio.run(_run(guard, within))
    if not left:
        typer.echo("valetkey: nothing is granted any more")
        return
    typer.echo(f"valetkey: {len(left)} grants are not revoked, so the chart stays; it grants nothing new:", err=True)
    for body in left:
        typer.echo(f"  {_name(body)}: {_held_up_by(body)}", err=True)
    typer.echo(
        "Mend what holds them up and uninstall again; `helm rollback` puts the chart back to work.\n"
        "Or leave them to their expiry: `valetkey revoke NAMESPACE/NAME --force --because …` for each,"
        " then `helm uninstall --no-hooks`.",
        err=True,
    )
    raise typer.Exit(1)


async def _run(guard: str, within: float) -> list[Json]:
    async with open_session(ACCOUNT) as session:
        return await close(Client(session, server(), clock=Clock()), guard, within=within)


async def close(api: Api, guard: str, *, within: float, quiet: float = QUIET) -> list[Json]:
    """Stops granting and deletes every TaskGrant; gives those that are left after so many seconds.

    An API server that is away is asked again, for as long.
    """
    deadline = monotonic() + within
    closed, quiet_since = False, None
    left: list[Json] = []
    while True:
        try:
            if not closed:
                await _remove(api, paths.item("ValidatingAdmissionPolicyBinding", None, guard))
                closed = True
            left = [body async for body in api.list(paths.collection("TaskGrant"))]
            for body in left:
                if "deletionTimestamp" not in body["metadata"]:
                    await _delete(api, body)
        except ApiError as error:
            if error.refused or monotonic() > deadline:
                raise
            typer.echo(f"valetkey: {error}; tried again", err=True)
            quiet_since = None
        else:
            quiet_since = None if left else quiet_since or monotonic()
            if quiet_since is not None and monotonic() - quiet_since >= quiet:
                return []
            if left and monotonic() > deadline:
                return left
        await asyncio.sleep(min(_PAUSE, quiet))


async def _remove(api: Api, path: str) -> None:
    try:
        body = await api.get(path)
    except ApiError as error:
        if not error.not_found:
            raise
    else:
        await api.delete(path, uid=body["metadata"]["uid"])


async def _delete(api: Api, body: Json) -> None:
    metadata = body["metadata"]
    try:
        await api.delete(paths.item("TaskGrant", metadata["namespace"], metadata["name"]), uid=metadata["uid"])
    except ApiError as error:
        if not error.conflict:  # another of the same name, which the next look finds
            raise


def _held_up_by(body: Json) -> str:
    finalizers = body["metadata"].get("finalizers", ())
    if not (why := held_up(body)):
        ours = REVOKE_FINALIZER in finalizers
        why = "nobody revokes it; is the operator running?" if ours else f"kept by {', '.join(finalizers)}"
    expires = expiry(body)
    return why if expires is None else f"{why}; its token expires by itself at {expires}"


def _name(body: Json) -> str:
    return f"{body['metadata']['namespace']}/{body['metadata']['name']}"
