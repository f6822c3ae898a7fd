"""What `valetkey explain` reads of people's words for whole tasks, with the caller's own rights."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.properties.life import approval, pod, request
from tests.properties.world import World
from valetkey.cli.cluster import facts
from valetkey.kinds.accessrequest import RequestSpec
from valetkey.kube.api import Json

TASK: dict[str, Any] = {"covers": "Task", "until": "2026-01-01T02:00:00Z", "policyGeneration": 1}


def kubectl(monkeypatch: pytest.MonkeyPatch, directory: Path, world: World) -> None:
    """Puts a kubectl on PATH that shows a world: one pod by its name, and all that there is of the other kinds."""
    kinds = {
        "taskgrants.valetkey.dev": "TaskGrant",
        "namespaces": "Namespace",
        "accessapprovals.valetkey.dev": "AccessApproval",
        "accessrequests.valetkey.dev": "AccessRequest",
    }
    answers: dict[str, Json] = {name: {"items": list(world.of(kind))} for name, kind in kinds.items()}
    answers["pod"] = world.objects["Pod", "shop", "one"]
    cases = "".join(f"{name}) printf %s {shlex.quote(json.dumps(body))};;\n" for name, body in answers.items())
    (directory / "kubectl").write_text(f"#!/bin/sh\ncase $2 in\n{cases}esac\n")
    (directory / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")


def test_words_on_other_requests_are_read_with_what_those_ask_for_and_who_denies_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = World()
    one = world.add("Pod", pod("one"))
    first, denied, going, own = (
        world.add("AccessRequest", request(name, one, "15m", "valetkey-one-a", world.now))
        for name in ("first", "denied", "going", "own")
    )
    world.change("AccessRequest", "shop", "going", {"metadata": {"finalizers": ["x"]}})
    world.remove("AccessRequest", "shop", "going")
    for asked in (first, denied, going, own):
        world.add("AccessApproval", approval(f"{asked['metadata']['name']}-yes", asked, "ann", **TASK))
    world.add("AccessApproval", approval("no", denied, "bob", "Deny"))
    world.add("AccessApproval", approval("plain", first, "kim"))
    kubectl(monkeypatch, tmp_path, world)
    spec = RequestSpec.model_validate(own["spec"])
    known = facts("shop", spec, "", request_uid=own["metadata"]["uid"])
    assert [(one.said.request, one.said.username, one.denied_by) for one in known.covering] == [
        ("first", "ann", None),
        ("denied", "ann", "bob"),
    ]
    assert known.covering[0].asked == first["spec"]
    assert [one.name for one in known.approvals] == ["own-yes"]
    assert facts("shop", spec, "").covering == ()
