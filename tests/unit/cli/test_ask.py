"""What `can-i` says of a decision, and what it cannot know."""

from __future__ import annotations

import json

import pytest
import typer

from tests.unit.policy.given import decided, policy, request, usable
from valetkey.cli.ask import _tell
from valetkey.cli.kubectl import Output
from valetkey.policy.backwards import who_can
from valetkey.policy.compile import Policies


def told(capsys: pytest.CaptureFixture[str], output: Output, **limits: object) -> str:
    with pytest.raises(typer.Exit) as ended:
        _tell(decided(request(), policy(limits=limits)), output)
    assert ended.value.exit_code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("limits", [{"perHour": 1}, {"cooldown": "1s"}])
def test_where_a_policy_limits_how_often_it_grants_a_yes_says_that_this_is_not_known(
    capsys: pytest.CaptureFixture[str], limits: dict[str, object]
) -> None:
    said = told(capsys, Output.TABLE, **limits)
    assert said.startswith("yes: policy shop-fixers, entry restart, for 5m\n")
    assert "asked for real it may be denied" in said
    assert json.loads(told(capsys, Output.JSON, **limits))["notCounted"] == ["limits.perHour", "limits.cooldown"]


def test_a_yes_of_any_other_policy_is_a_yes(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, Output.TABLE, active=2) == "yes: policy shop-fixers, entry restart, for 5m\n"
    assert "notCounted" not in told(capsys, Output.JSON, active=2)


def test_read_backwards_a_policy_says_how_often_it_grants() -> None:
    limited = Policies.of([usable(policy(limits={"perHour": 3, "cooldown": "10s"}))])
    (may,) = who_can(limited, "patch", "deployments", "apps", "shop")
    assert may.conditions == ("3 an hour at most", "10s apart")


def test_where_a_policy_is_for_emergencies_a_yes_says_that_reviews_are_not_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for limits, fields in (({}, ["breakGlass"]), ({"perHour": 1}, ["limits.perHour", "limits.cooldown", "breakGlass"])):
        decision = decided(request(), policy(breakGlass={}, limits=limits))
        with pytest.raises(typer.Exit):
            _tell(decision, Output.JSON)
        assert json.loads(capsys.readouterr().out)["notCounted"] == fields
        with pytest.raises(typer.Exit):
            _tell(decision, Output.TABLE)
        assert "hether what it granted before was reviewed the operator alone knows" in capsys.readouterr().out
