"""What people are shown before they approve or review."""

from __future__ import annotations

from typing import Any

import pytest
from typer import Exit

from tests.unit.policy.given import DEPLOYMENTS, PODS, in_shop, request
from valetkey.cli.approve import _asked
from valetkey.cli.review import _shown

TO = [{"namespace": "shop-agents", "serviceAccount": "worker"}]


def told(**spec: Any) -> list[str]:
    return list(_asked({"spec": request(**spec).to_api(), "status": {"agent": "fixer/fixer-0"}}))


def test_all_that_an_approval_opens_is_shown_however_long() -> None:
    long = {**DEPLOYMENTS, "resourceNames": [f"{at:03}".ljust(250, "n") for at in range(32)]}
    secrets = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]}
    lines = told(access=in_shop(long, PODS), delegation={"to": TO, "access": [in_shop(long, secrets)]})
    assert lines[1] == "fixer/fixer-0 asks for shop: get,list pods"
    assert lines[3] == "and hands on to shop-agents/worker: shop: * secrets"
    assert all(name in lines[0] and name in lines[2] for name in long["resourceNames"])


def test_what_is_handed_on_without_more_is_the_same_and_whose_work_it_is_is_told() -> None:
    parent = {"namespace": "plans", "name": "plan", "uid": "u"}
    assert told(delegation={"to": TO, "maxDepth": 2}, parent=parent)[1:] == [
        "and hands on to shop-agents/worker (2 times): the same",
        "in the work of plans/plan",
    ]


def test_what_this_command_cannot_show_in_full_it_does_not_approve(capsys: pytest.CaptureFixture[str]) -> None:
    spec = request().to_api() | {"ofALaterVersion": True}
    with pytest.raises(Exit):
        list(_asked({"spec": spec}))
    assert "upgrade" in capsys.readouterr().err


def body(reason: str) -> dict[str, Any]:
    approved = {"type": "Approved", "reason": reason, "message": "policy fix, for an emergency"}
    status = {"agent": "fixer", "conditions": [approved], "decision": {"policy": "fix"}}
    return {"metadata": {"uid": "u"}, "spec": request().to_api(), "status": status}


def test_before_a_review_what_was_granted_is_shown_and_anything_else_is_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _shown(body("BreakGlassUsed"), "shop/r") == "fix"
    assert "fixer: policy fix, for an emergency\nfor remediation: Restart checkout" in capsys.readouterr().out
    with pytest.raises(Exit):
        _shown(body("PolicyMatched"), "shop/r")
    assert "nothing is to be reviewed" in capsys.readouterr().err
