"""How a request came in: a policy may say which ways it has."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.policy.given import decided, deny, facts, policy, request
from valetkey.kinds.accessrequest import RequestSpec
from valetkey.policy.backwards import who_can
from valetkey.policy.casefile import CaseFile
from valetkey.policy.cases import run
from valetkey.policy.compile import Policies, compile_policy
from valetkey.policy.decide import Approved, Denied
from valetkey.reasons import Reason


def came(via: str) -> RequestSpec:
    asked = request()
    return asked.model_copy(update={"requester": asked.requester.model_copy(update={"via": via})})


@pytest.mark.parametrize("ways", [None, ["API", "Door"], ["Door", "API"]])
@pytest.mark.parametrize("via", ["API", "Door"])
def test_a_policy_that_names_none_has_both(ways: list[str] | None, via: str) -> None:
    assert isinstance(decided(came(via), policy(via=ways)), Approved)


@pytest.mark.parametrize(
    ("way", "other", "says"), [("API", "Door", "the pod's own token"), ("Door", "API", "the door")]
)
def test_what_came_by_another_way_is_denied_and_told_which(way: str, other: str, says: str) -> None:
    assert isinstance(decided(came(way), policy(via=[way])), Approved)
    decision = decided(came(other), policy(via=[way]))
    assert isinstance(decision, Denied)
    told = decision.denial
    assert (told.reason, told.field, told.allowed) == (Reason.VIA_NOT_ALLOWED, "spec.requester.via", f"via: {way}")
    assert says in told.message
    assert told.contact == "#shop-platform"


def test_it_is_asked_again_of_a_live_grant() -> None:
    decision = decided(came("Door"), policy(via=["API"]), known=facts(live=True))
    assert isinstance(decision, Denied)
    assert decision.denial.reason == Reason.VIA_NOT_ALLOWED


def test_another_policy_that_has_the_way_grants() -> None:
    decision = decided(came("Door"), policy("a", via=["API"]), policy("b", via=["Door"]))
    assert isinstance(decision, Approved)
    assert decision.policy.name == "b"


def test_a_deny_holds_for_whatever_way_it_came_in() -> None:
    for via in ("API", "Door"):
        assert isinstance(decided(came(via), policy(), deny()), Denied)


def test_cases_say_how_a_request_comes_in() -> None:
    case: dict[str, Any] = {
        "name": "by the door",
        "agent": {"namespace": "shop-agents", "serviceAccount": "fixer"},
        "via": "Door",
        "request": request().model_dump(by_alias=True, include={"task", "access"}, mode="json", exclude_none=True),
        "expect": "Denied",
        "reason": "ViaNotAllowed",
    }
    file = CaseFile.model_validate({"kind": "PolicyTest", "cases": [case]})
    (result,) = run(file, Policies.of([compile_policy(policy(via=["API"]))]))
    assert result.wrong == ""


def test_read_backwards_a_policy_says_which_way_it_has() -> None:
    (may,) = who_can(Policies.of([compile_policy(policy(via=["API"]))]), "patch", "deployments", "apps", "shop")
    assert may.conditions == ("via API alone",)
