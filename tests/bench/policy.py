"""What people decide: how soon a changed policy, a Deny and an approval come about."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from tests.bench import ends, many
from tests.bench.many import first_writes, milliseconds
from tests.bench.one import GRANTS, SECRETS, added, bare, removed
from tests.bench.requests import request
from tests.bench.rig import OURS, POLICY, Rig
from tests.bench.server import AGENTS, Watcher
from tests.cluster.api import Caller, Json
from tests.cluster.local.places import AUDIT_LOG
from valetkey.kinds.base import format_time

_REQUESTS = f"{OURS}/namespaces/{AGENTS}/accessrequests"
_POLICIES = f"{OURS}/agentpolicies"
_APPROVALS = f"{OURS}/namespaces/{AGENTS}/accessapprovals"
_KIND = {"apiVersion": "valetkey.dev/v1alpha1"}
_SUCCEEDED = {"spec": {"outcome": "Succeeded"}}
DENY: Json = _KIND | {
    "kind": "AgentPolicy",
    "metadata": {"name": "bench-deny"},
    "spec": {
        "effect": "Deny",
        "subjects": [{"name": "agents", "namespace": AGENTS, "serviceAccount": "default"}],
    },
}
ASKED = "asked"
"""The purpose for which people are asked."""
PERSON = Caller(user="bench-person", groups=("system:masters",))


@dataclass(frozen=True)
class Changed:
    """A policy that is changed while many grants of it live."""

    number: int
    last: float
    """Milliseconds until the revocation of the one that it no longer allows began; the others were looked at first."""
    every: list[float]
    """Milliseconds until the revocation of each had begun, where it allows none of them."""


async def changed(rig: Rig, number: int) -> Changed:
    """Changes the policy twice: so that it does not allow the last of so many live grants, and then none."""
    agents = await many.agents(rig, number, "changed")
    names = [f"changed-{place}" for place in range(number)]
    await ends.begin(rig, agents, names, "50m")
    await asyncio.sleep(5)  # what their beginning left to do is done
    async with Watcher(rig.server, GRANTS, removed) as gone:
        began = await _rule(rig, f'identity.podName != "{agents[-1][0]["metadata"]["name"]}"')
        await gone.when(names[-1])
        last = _began(began, names[-1:])
        rig.say(f"{number} live grants: the one that is not allowed any more began to end after {last[0]:.0f} ms")
        began = await _rule(rig, 'identity.podName == "nobody"')
        for name in names[:-1]:
            await gone.when(name, seconds=300)
        every = _began(began, names[:-1])
    await _rule(rig, None)
    return Changed(number, last[0], every)


async def _rule(rig: Rig, expression: str | None) -> str:
    """Gives the policy one rule, or none; when that was sent."""
    sent = format_time(datetime.now(UTC))
    rules = [{"name": "bench", "expression": expression, "message": "no"}] if expression else None
    await rig.server.send("PATCH", f"{_POLICIES}/bench", {"spec": {"validations": rules}})
    return sent


def _began(since: str, names: list[str]) -> list[float]:
    written = first_writes(AUDIT_LOG, dict.fromkeys(names, since))
    return [milliseconds(since, written[name]) for name in names]


async def denied(rig: Rig, number: int) -> dict[str, list[float]]:
    """Milliseconds from a Deny to the refusal of a live credential, and until a request that comes with it is over."""
    times: dict[str, list[float]] = {key: [] for key in ("dead", "bare dead", "refused")}
    pod = await rig.pod("denied")
    token = await rig.token(pod)
    async with (
        Watcher(rig.server, SECRETS, added) as secrets,
        Watcher(rig.server, GRANTS, removed) as gone,
        Watcher(rig.server, _REQUESTS, _finished) as finished,
    ):
        for place in range(number):
            if place % 50 == 0:
                rig.say(f"a Deny and a live grant: {place} of {number}")
            name, late = f"denied-{place}", f"late-{place}"
            credential = await _credential(rig, name, pod, token, secrets)
            ended = time.perf_counter()
            refused = asyncio.create_task(rig.server.refused(credential))
            await rig.server.send("POST", _POLICIES, DENY)
            await rig.server.send("POST", _REQUESTS, request(late, pod, token), token=token)
            over, _ = await finished.when(late)
            times["dead"].append((await refused - ended) * 1000)
            times["refused"].append((over - ended) * 1000)
            await gone.when(name)
            await rig.server.send("DELETE", f"{_POLICIES}/{DENY['metadata']['name']}")
            _, dead = await bare(rig, f"bare-{name}", pod, token, secrets, reversible=True)
            times["bare dead"].append(dead)
    return times


async def approved(rig: Rig, number: int) -> tuple[list[float], list[float]]:
    """Milliseconds from an approval to the credential, and from a request to it where nobody is asked, in turn."""
    spec = POLICY["spec"] | {"purposes": [{"name": ASKED}], "approval": {}}
    await rig.server.send("POST", _POLICIES, POLICY | {"metadata": {"name": "bench-asked"}, "spec": spec})
    pod = await rig.pod("approved")
    token = await rig.token(pod)
    asked: list[float] = []
    plain: list[float] = []
    async with (
        Watcher(rig.server, SECRETS, added) as secrets,
        Watcher(rig.server, GRANTS, removed) as gone,
        Watcher(rig.server, _REQUESTS, _waits) as waits,
    ):
        for place in range(number):
            if place % 50 == 0:
                rig.say(f"with an approval and without: {place} of {number}")
            for purpose, times in ((ASKED, asked), ("bench", plain)):
                name, secret = f"{purpose}-{place}", f"valetkey-{pod['metadata']['name']}"
                body = request(name, pod, token)
                body["spec"]["task"]["purpose"] = purpose
                secrets.forget(secret)
                sent = time.perf_counter()
                made = await rig.server.send("POST", _REQUESTS, body, token=token)
                if purpose == ASKED:
                    await waits.when(name)
                    await asyncio.sleep(0.05)  # a person thinks
                    sent = time.perf_counter()
                    await rig.server.send("POST", _APPROVALS, _approval(made), by=PERSON)
                times.append(((await secrets.when(secret))[0] - sent) * 1000)
                await asyncio.sleep(0.05)
                await rig.server.send("PATCH", f"{_REQUESTS}/{name}", _SUCCEEDED, token=token)
                await gone.when(name)
    return asked, plain


def _approval(asked: Json) -> Json:
    about = {"name": asked["metadata"]["name"], "uid": asked["metadata"]["uid"]}
    owner = _KIND | {"kind": "AccessRequest"} | about
    return _KIND | {
        "kind": "AccessApproval",
        "metadata": {"name": about["name"], "ownerReferences": [owner]},
        "spec": {"request": about, "policy": "bench-asked", "verdict": "Approve"},
    }


async def _credential(rig: Rig, name: str, pod: Json, token: str, secrets: Watcher) -> str:
    """What a request came to, once it was used."""
    place = f"valetkey-{pod['metadata']['name']}"
    secrets.forget(place)
    await rig.server.send("POST", _REQUESTS, request(name, pod, token), token=token)
    _, secret = await secrets.when(place)
    credential = base64.b64decode(secret["data"]["token"]).decode()
    await asyncio.sleep(0.05)
    await rig.server.status(f"/api/v1/namespaces/{AGENTS}", credential)
    return credential


def _where(body: Json, holds: Callable[[Json], bool]) -> str | None:
    conditions = body.get("status", {}).get("conditions", ())
    return str(body["metadata"]["name"]) if any(map(holds, conditions)) else None


def _finished(_: str, body: Json) -> str | None:
    """The name of a request that is over."""
    return _where(body, lambda one: one["type"] == "Finished" and one["status"] == "True")


def _waits(_: str, body: Json) -> str | None:
    """The name of a request that waits for people."""
    return _where(body, lambda one: one["reason"] == "AwaitingApproval")
