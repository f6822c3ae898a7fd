"""What kubectl gives is what others wrote: it is shown as it is, and believed only as far as it goes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.unit.policy.given import in_shop, request
from valetkey.cli.app import app

REQUEST: dict[str, Any] = {
    "metadata": {"name": "r", "namespace": "shop", "uid": "u-2"},
    "spec": request(
        {"purpose": "fix", "objective": "mend \x1b[2Jit"},
        access=in_shop({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}),
    ).to_api(),
    "status": {
        "decision": {"outcome": "Pending", "policy": "restart"},
        "agent": "fixer/one",
        "access": "shop: get pods",
    },
}


def kubectl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, says: str, error: str = "") -> Path:
    """Puts a kubectl on PATH that says this, and notes what it is asked."""
    asked = tmp_path / "asked"
    script = f'#!/bin/sh\necho "$@" >> {asked}\nprintf %s {shlex.quote(says)}\n'
    script += f"printf %s {shlex.quote(error)} >&2\nexit 1\n" if error else ""
    (tmp_path / "kubectl").write_text(script)
    (tmp_path / "kubectl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return asked


def run(*arguments: str, said: str | None = None) -> Result:
    return CliRunner().invoke(app, [*arguments], input=said)


def test_another_request_of_the_name_than_the_one_that_is_meant_is_not_approved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = kubectl(monkeypatch, tmp_path, json.dumps(REQUEST))
    done = run("approve", "shop/r", "--uid", "u-1", "--yes")
    assert done.exit_code == 1
    assert "another request" in done.output
    assert "create" not in asked.read_text()


def test_what_is_approved_is_shown_before_it_is_and_a_no_says_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = kubectl(monkeypatch, tmp_path, json.dumps(REQUEST))
    done = run("approve", "shop/r", said="n\n")
    assert done.exit_code == 1
    assert done.output.startswith("fixer/one asks for shop: get pods\nfor fix: mend �[2Jit\nApprove it?")
    assert "create" not in asked.read_text()


def test_access_whose_time_is_over_is_not_there_though_nobody_has_said_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ready = {"type": "Ready", "status": "True", "reason": "AccessDelivered", "message": "in Secret valetkey-one"}
    status = {"conditions": [ready], "deadAt": "2020-01-01T00:11:00Z"}
    kubectl(monkeypatch, tmp_path, json.dumps(REQUEST | {"status": status}))
    done = run("get", "shop/r")
    assert done.exit_code == 5
    assert done.output.startswith("shop/r: Lapsed\n")


def test_a_refusal_is_told_without_what_a_terminal_obeys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kubectl(monkeypatch, tmp_path, "", error="forbidden: \x1b]0;title\x07 no")
    done = run("get", "shop/r")
    assert done.exit_code == 1
    assert "\x1b" not in done.output
    assert "forbidden" in done.output
