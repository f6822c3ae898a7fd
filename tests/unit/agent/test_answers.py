"""What is asked is denied, waits for people or comes to nothing, and the error says why and what to ask instead."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

import valetkey
from tests.unit.agent.agents import access, entries
from tests.unit.agent.apiserver import Apiserver
from valetkey.agent import leftovers
from valetkey.kinds.access import Access
from valetkey.policy import allowances


def test_a_denial_says_all_that_it_knows(server: Apiserver) -> None:
    said = {"field": "spec.access", "allowed": "shop: get pods", "retryAfter": "1m30s", "contact": "#shop"}
    server.decides = lambda name: server.deny(name, **said)
    with pytest.raises(valetkey.Denied) as caught, access(server):
        pass
    denied = caught.value
    assert (denied.reason, denied.field, denied.allowed) == ("AccessBeyondPolicy", "spec.access", "shop: get pods")
    assert denied.retry_after is not None
    assert denied.retry_after.total_seconds() == 90
    for part in ("restart allows no delete", "spec.access", "shop: get pods", "1m30s", "#shop", "d-17"):
        assert part in str(denied)
    assert server.made("PATCH") == []
    assert entries() == []


def test_what_a_denial_allows_can_be_pasted_and_is_what_is_asked(server: Apiserver) -> None:
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "resourceNames": ["web"]}
    allowed = {"kubernetes": {"scopes": [{"namespace": "shop", "rules": [rule]}]}}
    written = allowances.without_risks(Access.model_validate(allowed), (), {})
    assert written is not None
    server.decides = lambda name: server.deny(name, allowed=written)
    with pytest.raises(valetkey.Denied) as caught, access(server):
        pass
    assert f"Allowed there: {written} " in str(caught.value)
    server.decides = server.grant
    assert caught.value.allowed is not None
    for pasted in (caught.value.allowed, caught.value.allowed.removeprefix("access: "), f"\n{written}\n"):
        with access(server, access=pasted) as grant:
            assert server.requests[grant.name]["spec"]["access"] == allowed


def test_a_namespace_may_be_called_access_and_json_that_is_none_is_refused(server: Apiserver) -> None:
    with access(server, access="access: get pods"):
        assert server.only()["spec"]["access"]["kubernetes"]["scopes"][0]["namespace"] == "access"
    for text in ('access: {"kubernetes"', '{"kubernetes": {}}; shop: get pods', "{shop}: get pods"):
        with pytest.raises(valetkey.InvalidAccess, match="read as JSON"):
            access(server, access=text)


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("RequestInvalid", valetkey.Denied),
        ("RequestDenied", valetkey.Denied),
        ("RequestExpired", valetkey.NotGranted),
        ("DeliveryFailed", valetkey.NotGranted),
        ("IssueFailed", valetkey.NotGranted),
    ],
)
def test_what_is_over_before_it_was_granted_was_denied_only_where_somebody_refused(
    server: Apiserver, reason: str, error: type[valetkey.AccessError]
) -> None:
    server.decides = lambda name: server.say(name, "Finished", "True", reason, "for a reason")
    with pytest.raises(error, match=f"{reason}: for a reason"), access(server):
        pass
    assert entries() == []


def test_a_request_that_is_deleted_while_it_waits_was_not_granted(server: Apiserver) -> None:
    server.decides = server.delete
    with pytest.raises(valetkey.NotGranted, match="RequestDeleted: the request was deleted before it was granted"):
        access(server).__enter__()
    assert entries() == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"purpose": None}, "purpose: it is text, not NoneType"),
        ({"objective": 5}, "objective: it is text, not int"),
        ({"access": ["shop: get pods"]}, "access: it is a mapping, not list"),
        ({"access": {"kubernetes": {1}}}, "access: it is not JSON"),
        ({"access": "{}}"}, "access: what begins with {"),
        ({"parameters": ["deployment"]}, "parameters: it is a mapping, not list"),
        ({"parameters": {"n": float("nan")}}, "parameters: it is not JSON"),
        ({"task": 7}, "task: it is text, not int"),
        ({"ttl": 60}, "ttl: "),
        ({"ttl": "60"}, "ttl: '60' is no length of time"),
        ({"timeout": "60"}, "timeout: '60' is no length of time"),
        ({"parent": "remediation-1"}, "parent: it is a mapping, not str"),
        ({"delegation": "worker"}, "delegation: it is a mapping, not str"),
        ({"delegation": {"access": "shop: get pods"}}, "delegation: its access is a list, not str"),
        ({"delegation": {"access": [1]}}, "delegation: it is a mapping, not int"),
    ],
    ids=str,
)
def test_an_argument_that_is_none_says_which_one_it_is(server: Apiserver, change: dict[str, Any], says: str) -> None:
    with pytest.raises(valetkey.InvalidAccess) as caught:
        access(server, **change)
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize(
    ("kind", "finished", "reason"),
    [("Identified", "RequestInvalid", "PodNotFound"), ("Approved", "RequestDenied", "No")],
)
def test_a_denial_has_the_reason_of_the_condition_that_refused(
    server: Apiserver, kind: str, finished: str, reason: str
) -> None:
    def refuse(name: str) -> None:
        server.say(name, kind, "False", reason, "there is a reason")
        server.say(name, "Finished", "True", finished, "it is over")

    server.decides = refuse
    with pytest.raises(valetkey.Denied, match="there is a reason") as caught, access(server):
        pass
    assert caught.value.reason == reason


def test_a_request_without_an_operator_times_out_and_is_taken_back(server: Apiserver) -> None:
    server.decides = server.nothing
    with pytest.raises(valetkey.TimedOut, match=r"within 0.6 s: nobody has decided"), access(server, timeout=0.6):
        pass
    assert server.outcome() == "Cancelled"
    assert entries() == []


@pytest.mark.parametrize("timeout", ["600ms", timedelta(seconds=0.6), 0.6], ids=repr)
def test_a_timeout_is_written_like_any_other_length_of_time(
    server: Apiserver, timeout: timedelta | str | float
) -> None:
    server.decides = server.nothing
    with pytest.raises(valetkey.TimedOut, match=r"within 0.6 s"), access(server, timeout=timeout):
        pass


@pytest.mark.parametrize("timeout", ["60", "a while", None, [1]], ids=repr)
def test_a_timeout_that_is_none_is_refused_before_anything_is_asked(timeout: Any) -> None:
    with pytest.raises(valetkey.InvalidAccess, match="timeout: "):
        valetkey.access("remediation", "restart", "shop: get pods", timeout=timeout)


def test_a_request_that_nobody_can_deliver_says_so_when_time_is_up(server: Apiserver) -> None:
    server.decides = lambda name: server.say(name, "Ready", "Unknown", "AccessInProgress", "BackendUnavailable: etcd")
    with pytest.raises(valetkey.TimedOut, match="BackendUnavailable: etcd"), access(server, timeout=0.6):
        pass


async def test_people_are_waited_for_longer_than_the_timeout(server: Apiserver) -> None:
    server.decides = server.ask_people
    said: list[str] = []

    async def approve() -> None:
        await asyncio.sleep(1)
        server.grant(server.names[0])

    approving = asyncio.create_task(approve())
    async with access(server, timeout=0.5, on_pending=said.append) as grant:
        assert grant.token()
    await approving
    assert said == ["restart asks 1 of shop-leads until 14:32"]


async def test_time_runs_again_when_people_have_spoken(server: Apiserver) -> None:
    server.decides = server.ask_people

    async def approve() -> None:
        await asyncio.sleep(0.7)
        server.say(server.names[0], "Approved", "True", "PersonApproved")

    approving = asyncio.create_task(approve())
    with pytest.raises(valetkey.TimedOut):
        async with access(server, timeout=0.5):
            pass
    await approving


def test_a_request_that_people_left_lying_is_over_and_says_for_whom_it_waited(server: Apiserver) -> None:
    def expire(_: str) -> None:
        server.say(server.names[0], "Finished", "True", "RequestExpired")

    server.decides = server.ask_people
    with (
        pytest.raises(valetkey.ApprovalPending, match="shop-leads until 14:32") as caught,
        access(server, on_pending=expire),
    ):
        pass
    assert caught.value.over
    assert entries() == []


def test_who_does_not_wait_for_people_finds_the_request_again(server: Apiserver) -> None:
    server.decides = server.ask_people
    with pytest.raises(valetkey.ApprovalPending, match="shop-leads until 14:32") as caught:
        access(server, wait_for_approval=False).__enter__()
    assert not caught.value.over
    assert server.outcome() is None
    server.grant(caught.value.request)
    with access(server, wait_for_approval=False) as grant:
        assert grant.name == caught.value.request
    assert server.outcome() == "Succeeded"


def test_what_waits_for_people_survives_another_task(server: Apiserver) -> None:
    server.decides = server.ask_people
    with pytest.raises(valetkey.ApprovalPending) as caught:
        access(server, wait_for_approval=False).__enter__()
    server.decides = server.grant
    leftovers._looked_at.clear()  # as a process does that has just begun
    with access(server, objective="something else"):
        pass
    assert server.outcome(caught.value.request) is None
    assert len(entries()) == 1
