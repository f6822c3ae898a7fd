"""`valetkey lock` and `unlock`: what they refuse before they ask kubectl for anything."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from valetkey.cli.app import app
from valetkey.cli.kubectl import place_of


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--because", "x"], "name what to lock"),
        (["--because", "x", "--all", "--namespace", "shop"], "--all alone"),
        (["--because", "x", "--subject", "shop/fixer", "--namespace", "shop"], "leave --namespace out"),
        (["--because", "  ", "--all"], "say why"),
        (["--all"], "--because"),
    ],
)
def test_a_lock_that_could_be_misread_is_not_set(
    arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("COLUMNS", "200")
    done = CliRunner().invoke(app, ["lock", *arguments])
    assert done.exit_code == 2
    assert says in done.output


@pytest.mark.parametrize("target", ["", "Shop/x", "a/b/c", "--all", "../x", "a b"])
def test_what_is_no_name_is_never_handed_to_kubectl(target: str) -> None:
    with pytest.raises(typer.BadParameter):
        place_of(target, "shop")
