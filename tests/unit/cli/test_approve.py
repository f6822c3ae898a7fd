"""`valetkey approve --for-task`: what is said of a whole task, and what keeps it from being said."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.unit.policy.given import request
from valetkey.cli.app import app
from valetkey.kinds.accessapproval import ApprovalSpec
from valetkey.policy.coverage import end

PENDING: dict[str, Any] = {"outcome": "Pending", "policy": "restart", "policyGeneration": 7, "covers": "Task"}
TASK = {"purpose": "fix", "objective": "mend it", "parameters": {"deployment": "che\x1bckout"}}
USER = {"status": {"userInfo": {"username": "ann", "groups": ["people"]}}}


class Kubectl:
    """A kubectl on PATH that knows one request, and keeps what it is to create."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path, decision: dict[str, Any]) -> None:
        self._given = directory / "given"
        asked = {
            "metadata": {"name": "r", "namespace": "shop", "uid": "u-1"},
            "spec": request(TASK).to_api(),
            "status": {"decision": decision, "agent": "fixer/one", "access": "shop: get pods"},
        }
        said = {
            "create": f"cat > {self._given}; echo accessapproval/r-x",
            "auth": f"echo {shlex.quote(json.dumps(USER))}",
        }
        cases = "".join(f"{word}) {does};;\n" for word, does in said.items())
        script = f"#!/bin/sh\ncase $1 in\n{cases}*) printf %s {shlex.quote(json.dumps(asked))};;\nesac\n"
        (directory / "kubectl").write_text(script)
        (directory / "kubectl").chmod(0o755)
        monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")

    @property
    def created(self) -> dict[str, Any] | None:
        """The spec of what it was to create."""
        return dict(json.loads(self._given.read_text())["spec"]) if self._given.exists() else None


def approve(*arguments: str, said: str | None = None) -> Result:
    return CliRunner().invoke(app, ["approve", "shop/r", *arguments], input=said)


def test_a_word_for_the_task_says_until_when_and_which_policy_was_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kubectl, now = Kubectl(monkeypatch, tmp_path, PENDING), datetime.now(UTC)
    done = approve("--for-task", "2h", "--yes")
    assert done.exit_code == 0, done.output
    created = kubectl.created
    assert created is not None
    spec = ApprovalSpec.model_validate(created)
    assert (spec.verdict, spec.policy, spec.covers, spec.policy_generation) == ("Approve", "restart", "Task", 7)
    until = end(spec, now)
    assert until is not None
    assert timedelta() <= until - (now.replace(microsecond=0) + timedelta(hours=2)) < timedelta(minutes=1)


def test_whoever_approves_a_task_is_shown_its_end_and_its_parameters_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kubectl = Kubectl(monkeypatch, tmp_path, PENDING)
    done = approve("--for-task", "1h", said="n\n")
    assert done.exit_code == 1
    assert 'with the parameters\n{"deployment": "che\\u001bckout"}\nApprove it?' in done.output
    assert kubectl.created is None


@pytest.mark.parametrize(
    ("decision", "arguments", "says"),
    [
        ({"covers": "Request"}, [], "set approval.covers: Task"),
        ({"covers": None}, [], "lets a word cover one request alone: leave --for-task out"),
        ({"policyGeneration": None}, [], "set approval.covers: Task"),
        ({}, ["--policy", "other"], "it does not wait for other"),
        ({"outcome": "Approved"}, ["--policy", "restart"], "it does not wait for restart"),
    ],
)
def test_a_task_is_approved_only_where_the_policy_that_waits_lets_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, decision: dict[str, Any], arguments: list[str], says: str
) -> None:
    whole = {key: value for key, value in (PENDING | decision).items() if value is not None}
    kubectl = Kubectl(monkeypatch, tmp_path, whole)
    done = approve("--for-task", "2h", "--yes", *arguments)
    assert done.exit_code == 1
    assert says in done.output
    assert kubectl.created is None


@pytest.mark.parametrize("duration", ["24h1ms", "0s", "soon", "-1h"])
def test_a_task_is_approved_for_a_day_at_most(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, duration: str) -> None:
    kubectl = Kubectl(monkeypatch, tmp_path, PENDING)
    done = approve(f"--for-task={duration}", "--yes")
    assert done.exit_code == 2
    assert "--for-task" in done.output
    assert kubectl.created is None


def test_without_it_a_word_is_of_one_request_as_ever(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kubectl = Kubectl(monkeypatch, tmp_path, PENDING)
    assert approve("--yes").exit_code == 0
    assert kubectl.created is not None
    assert not {"covers", "until", "policyGeneration"} & kubectl.created.keys()
