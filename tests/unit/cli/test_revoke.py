"""`valetkey revoke`: what it refuses before it asks kubectl for anything."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from valetkey.cli.app import app


@pytest.mark.parametrize(
    "name", ["fix-1", "/fix-1", "agents/", "agents/--all", "--all/fix-1", "a/b/c", "agents/a b", "-n/x"]
)
def test_what_is_no_grants_name_is_never_handed_to_kubectl(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    done = CliRunner().invoke(app, ["revoke", "--", name])
    assert done.exit_code == 2
    assert "NAMESPACE/NAME" in done.output


def test_force_without_a_reason_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    done = CliRunner().invoke(app, ["revoke", "agents/fix-1", "--force", "--because", "  "])
    assert done.exit_code == 2
    assert "--because" in done.output


def test_a_missing_kubectl_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    done = CliRunner().invoke(app, ["revoke", "agents/fix-1"])
    assert done.exit_code == 1
    assert "kubectl is not on PATH" in done.output
