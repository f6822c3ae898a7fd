"""next_step: what a key needs, as a table of views and steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any, get_args

import pytest

from tests.properties import life as given
from valetkey.controller.grant import RECHECK, ends, next_step
from valetkey.controller.steps import (
    Await,
    Decide,
    Deliver,
    Drop,
    End,
    Forget,
    Hold,
    Identify,
    Issue,
    LetGo,
    LookUp,
    Open,
    Progress,
    Refuse,
    Remove,
    Revoke,
    Step,
    Times,
    View,
    Wait,
    learnt,
)
from valetkey.errors import InvalidError
from valetkey.kinds.access import Access
from valetkey.kinds.accessapproval import AccessApproval
from valetkey.kinds.accessrequest import AccessRequest, Denial
from valetkey.kinds.credential import Credential
from valetkey.kinds.delivery import GrantDelivery, PlacedSecret
from valetkey.kinds.identity import Identity
from valetkey.kinds.taskgrant import ApprovalReference, PolicyReference, TaskGrant
from valetkey.kube.pods import Pod, parse
from valetkey.policy.decide import Approved, Decision, Denied, Undecided, Waiting
from valetkey.reasons import Reason

NOW = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)
OPENED, NOT_AFTER = NOW - timedelta(minutes=5), NOW + timedelta(minutes=10)
TIMES = Times(pending_ttl=timedelta(minutes=5), history_ttl=timedelta(hours=1), renew_after=timedelta(minutes=6))

POD: Pod = parse(given.pod("one") | {"metadata": given.pod("one")["metadata"] | {"uid": "pod-uid"}})
IDENTITY = Identity(
    namespace="shop", pod_name="one", pod_uid="pod-uid", node_name="n", service_account="fixer", labels={}
)
PLACE = GrantDelivery(secret=PlacedSecret(name="valetkey-one-a"))
REFERENCE = PolicyReference(name="fix", uid="policy-uid", generation=1)
APPROVED = Approved(REFERENCE, "read", timedelta(minutes=15), None, pod_templates=False, backstop=False)
DENIED = Denied(Denial(reason=Reason.POLICY_DENIED, message="not now"), "fix")
WAITING = Waiting("fix", 2, ("ann",), (), timedelta(minutes=10))
WORD = ApprovalReference(name="yes", uid="word-uid", username="ann")
UNDECIDED = Undecided(Reason.POLICIES_STALE, "not read lately")
REFUSED = InvalidError(Reason.IDENTITY_MISMATCH, "another pod")
SHARED = InvalidError(Reason.DELIVERY_SHARED, "shared")
BEYOND = InvalidError(Reason.ISSUED_BEYOND_ORDER, "too much")
CREDENTIAL = Credential(id="JTI=1", username="u", issued_at=NOW, expires_at=NOT_AFTER, files={}, made=())


def asked(created: datetime = NOW, *, status: dict[str, Any] | None = None, **changes: Any) -> AccessRequest:
    """A request that pod `one` made; `changes` are laid over its metadata, or over spec where they are its fields."""
    body = given.request("r", {"metadata": {"name": "one", "uid": "pod-uid"}}, "15m", "valetkey-one-a", NOW)
    body["metadata"] |= {"uid": "request-uid", "creationTimestamp": created}
    for name, value in changes.items():
        (body["spec"] if name == "outcome" else body["metadata"])[name] = value
    return AccessRequest.model_validate(body | {"status": status or {}})


def finished(at: datetime) -> AccessRequest:
    condition = {"type": "Finished", "status": "True", "reason": "TTLReached", "message": "", "lastTransitionTime": at}
    return asked(NOW - timedelta(hours=3), status={"conditions": [condition]})


def granted(
    *,
    delivered: bool = True,
    issued: datetime | None = OPENED,
    end: str | None = None,
    terminating: bool = False,
    not_after: datetime = NOT_AFTER,
    heartbeat: str | None = None,
) -> TaskGrant:
    """The grant of `asked`; without `delivered` it was only opened."""
    status: dict[str, Any] = {}
    if delivered:
        said = {"reason": "CredentialDelivered", "message": "", "lastTransitionTime": OPENED}
        status["conditions"] = [{"type": "Delivered", "status": "True", **said}]
    if issued is not None and delivered:
        expires = issued + timedelta(minutes=10)
        status["credential"] = {"id": "JTI=0", "username": "u", "issuedAt": issued, "expiresAt": expires}
    if end is not None:
        status["end"] = {"reason": end, "message": "as it was said", "at": NOW}
    metadata = {"name": "r", "namespace": "shop", "uid": "grant-uid", "creationTimestamp": OPENED}
    account = {"kind": "ServiceAccount", "namespace": "valetkey-grants", "name": "valetkey-request-uid"}
    subject = {"namespace": "shop", "podName": "one", "podUID": "pod-uid", "nodeName": "n", "serviceAccount": "fixer"}
    order = {
        "requestUID": "request-uid",
        "subject": subject,
        "task": {"id": "r", "purpose": "fix"},
        "policy": REFERENCE.to_api(),
        "decision": "d",
        "access": asked().spec.access.to_api(),
        "line": "shop: get configmaps",
        "openedAt": OPENED,
        "notAfter": not_after,
        "heartbeat": heartbeat,
    }
    spec = {
        "request": {"name": "r", "uid": "request-uid"},
        "order": order,
        "plan": {"kubernetes": {"account": account, "objects": []}},
        "delivery": PLACE.to_api(),
    }
    deleted = {"deletionTimestamp": NOW} if terminating else {}
    return TaskGrant.model_validate({"metadata": metadata | deleted, "spec": spec, "status": status})


def view(grant: TaskGrant | None = None, **changes: Any) -> View:
    """A live grant whose request and pod are well."""
    return replace(View(request=asked(), grant=grant, pod=POD, verdict=APPROVED), **changes)


def step(view: View, now: datetime = NOW) -> Step:
    return next_step(view, now, TIMES)


KNOWN = Progress(identity=IDENTITY, place=PLACE)
OLD = asked(NOW - TIMES.pending_ttl)
OVER, LONG_OVER = finished(NOW - timedelta(minutes=10)), finished(NOW - TIMES.history_ttl)
REQUESTS: dict[str, tuple[AccessRequest | None, Progress, Step]] = {
    "nothing is there": (None, Progress(), Forget()),
    "it is being deleted": (asked(deletionTimestamp=NOW), KNOWN, Forget()),
    "it is new": (asked(), Progress(), Identify(asked())),
    "the pod is known but not the Secret": (asked(), Progress(identity=IDENTITY), Identify(asked())),
    "it is identified": (asked(), KNOWN, Decide(asked(), IDENTITY, PLACE)),
    "it is approved": (asked(), learnt(KNOWN, decision=APPROVED), Open(asked(), IDENTITY, PLACE, APPROVED)),
    "it is denied": (asked(), learnt(KNOWN, decision=DENIED), Refuse(asked(), DENIED)),
    "it cannot be decided": (asked(), learnt(KNOWN, decision=UNDECIDED), Hold(UNDECIDED)),
    "a step refused it": (asked(), Progress(failure=REFUSED), Refuse(asked(), REFUSED)),
    "though approved, too": (asked(), learnt(KNOWN, decision=APPROVED, failure=REFUSED), Refuse(asked(), REFUSED)),
    "the task is over already": (
        asked(outcome="Failed"),
        learnt(KNOWN, decision=APPROVED),
        Refuse(asked(outcome="Failed"), Reason.TASK_RELEASED),
    ),
    "it waits for people": (
        asked(),
        learnt(KNOWN, decision=WAITING),
        Await(asked(), WAITING, NOW + timedelta(minutes=10)),
    ),
    "it waited too long": (OLD, learnt(KNOWN, decision=APPROVED), Refuse(OLD, Reason.REQUEST_EXPIRED)),
    "it was not decided on": (OLD, learnt(KNOWN, decision=UNDECIDED), Refuse(OLD, Reason.REQUEST_EXPIRED)),
    "it has finished": (OVER, Progress(), Wait(NOW + timedelta(minutes=50))),
    "finished, whatever is said": (OVER, learnt(KNOWN, decision=APPROVED), Wait(NOW + timedelta(minutes=50))),
    "its history is over": (LONG_OVER, Progress(), Remove(LONG_OVER)),
}


def test_a_request_beyond_its_accounts_limit_is_dropped_before_anybody_looks_at_it_and_not_after() -> None:
    for request_ in (asked(), OLD, asked(outcome="Failed")):
        assert step(View(request=request_, grant=None, crowded=True)) == Drop(request_)
    assert step(View(request=OVER, grant=None, crowded=True)) == Wait(NOW + timedelta(minutes=50))
    assert isinstance(step(View(request=asked(), grant=None, crowded=True, progress=KNOWN)), Decide)


@pytest.mark.parametrize(("request_", "progress", "expected"), REQUESTS.values(), ids=REQUESTS)
def test_a_request_without_a_grant(request_: AccessRequest | None, progress: Progress, expected: Step) -> None:
    assert step(View(request=request_, grant=None, progress=progress)) == expected


NO = AccessApproval.model_validate(
    given.approval("no", {"metadata": {"name": "r", "uid": "request-uid"}}, "bob", "Deny")
    | {"metadata": {"name": "no", "namespace": "shop", "uid": "no-uid", "creationTimestamp": NOW}}
)


LONGER = replace(APPROVED, approvals=(WORD,), wait=timedelta(minutes=10))
AGES: list[tuple[Decision | None, float, float]] = [
    (None, 0, 5),
    (None, 20, 20),
    (None, 1, 5),
    (UNDECIDED, 20, 20),
    (APPROVED, 20, 5),
    (WAITING, 20, 10),
    (LONGER, 20, 10),
    (replace(LONGER, wait=timedelta(minutes=1)), 20, 1),
]


@pytest.mark.parametrize(("decision", "longest", "minutes"), AGES)
def test_how_long_a_request_may_wait_is_said_by_what_it_waits_for(
    decision: Decision | None, longest: float, minutes: float
) -> None:
    made = asked(NOW - timedelta(minutes=minutes))
    seen = View(
        request=made, grant=None, longest_wait=timedelta(minutes=longest), progress=learnt(KNOWN, decision=decision)
    )
    assert step(seen) == Refuse(made, Reason.REQUEST_EXPIRED)
    assert not isinstance(step(seen, NOW - timedelta(microseconds=1)), Refuse)


OPEN, LIVE, GOING = granted(delivered=False), granted(), granted(end="TTLReached", terminating=True)
ENDED = granted(end="TTLReached")
BEATING, SOON = granted(heartbeat="1m"), NOW + timedelta(seconds=20)
LAST = granted(issued=NOW - timedelta(minutes=6), not_after=NOW + timedelta(minutes=4))
DUE = granted(issued=NOW - timedelta(minutes=6))
SHORT = granted(issued=NOW - timedelta(minutes=4), not_after=NOW + timedelta(minutes=5, seconds=59))
GRANTS: dict[str, tuple[View, Step]] = {
    "it was just opened": (view(OPEN), Issue(OPEN)),
    "opened, and policy cannot say": (view(OPEN, verdict=UNDECIDED), Hold(UNDECIDED)),
    "a credential was made": (view(OPEN, progress=Progress(credential=CREDENTIAL)), Deliver(OPEN, CREDENTIAL, POD)),
    "made, and policy cannot say": (
        view(OPEN, progress=Progress(credential=CREDENTIAL), verdict=UNDECIDED),
        Hold(UNDECIDED),
    ),
    "opened by a word that is not known": (view(OPEN, unknown=(WORD,)), LookUp(OPEN, (WORD,), ())),
    "live by one": (view(LIVE, unknown=(WORD,)), LookUp(LIVE, (WORD,), ())),
    "a renewal is due, and the word is not known": (view(DUE, unknown=(WORD,)), LookUp(DUE, (WORD,), ())),
    "somebody denies it": (view(LIVE, unheard=(NO,)), LookUp(LIVE, (), (NO,))),
    "delivered": (view(LIVE), Wait(NOW + timedelta(minutes=1))),
    "delivered, and its agent is to be heard of": (view(LIVE, beat_due=SOON), Wait(SOON)),
    "its agent is overdue": (view(LIVE, beat_due=NOW), LookUp(LIVE, (), (), beat=True)),
    "its agent cannot be heard of": (view(BEATING), Wait(NOW + RECHECK)),
    "delivered, and policy cannot say": (view(LIVE, verdict=UNDECIDED), Wait(NOW + timedelta(minutes=1))),
    "a renewal is due": (view(DUE), Issue(DUE, renewal=True)),
    "a renewal is due, and policy cannot say": (view(DUE, verdict=UNDECIDED), Wait(NOW + RECHECK)),
    "a renewal was made": (view(DUE, progress=Progress(credential=CREDENTIAL)), Deliver(DUE, CREDENTIAL, POD)),
    "a renewal was made, and policy cannot say": (
        view(DUE, progress=Progress(credential=CREDENTIAL), verdict=UNDECIDED),
        Hold(UNDECIDED),
    ),
    "the credential lasts as long as the grant": (view(LAST), Wait(LAST.spec.order.not_after)),
    "the credential outlasts the grant by a second": (view(SHORT), Wait(SHORT.spec.order.not_after)),
    "its end is written": (view(ENDED), End(ENDED, Reason.TTL_REACHED, "as it was said")),
    "its end is written, whatever else is so": (
        view(ENDED, request=None, pod=None, verdict=DENIED),
        End(ENDED, Reason.TTL_REACHED, "as it was said"),
    ),
    "it is going": (view(GOING), Revoke(GOING)),
    "it is going, and nothing else is there": (view(GOING, request=None, pod=None, verdict=None), Revoke(GOING)),
    "it is revoked": (view(GOING, progress=Progress(proof="Absent")), LetGo(GOING, "Absent")),
    "it is going, and a step failed": (view(GOING, progress=Progress(failure=BEYOND)), Revoke(GOING)),
    "somebody deleted it": (
        view(granted(terminating=True)),
        End(granted(terminating=True), Reason.GRANT_DELETED, "the TaskGrant was deleted"),
    ),
    "it vanished": (view(LIVE, vanished=True), End(LIVE, Reason.GRANT_DELETED, "the TaskGrant was deleted")),
    "it vanished, and that is written": (view(ENDED, vanished=True), Revoke(ENDED)),
    "it vanished and is revoked": (
        view(ENDED, vanished=True, progress=Progress(proof="Absent")),
        LetGo(ENDED, "Absent"),
    ),
}


@pytest.mark.parametrize(("seen", "expected"), GRANTS.values(), ids=GRANTS)
def test_a_grant(seen: View, expected: Step) -> None:
    assert step(seen) == expected


def test_a_renewal_that_policy_cannot_say_anything_to_waits_no_longer_than_the_grant() -> None:
    assert step(view(DUE, verdict=UNDECIDED), NOT_AFTER - timedelta(seconds=1)) == Wait(NOT_AFTER)


@pytest.mark.parametrize(("seen", "going"), [(view(LIVE), False), (view(OPEN), False), (view(GOING), True)])
def test_a_grant_is_on_its_way_out_or_not(seen: View, going: bool) -> None:
    assert ends(seen, NOW) == going


def test_every_step_is_in_the_tables() -> None:
    reached = {type(expected) for *_, expected in (*REQUESTS.values(), *GRANTS.values())}
    assert reached | {Drop} == set(get_args(Step))


def _pod(**changes: Any) -> Callable[[View], View]:
    return lambda seen: replace(seen, pod=seen.pod and replace(seen.pod, **changes))


def _request(request: Callable[[AccessRequest], AccessRequest | None]) -> Callable[[View], View]:
    return lambda seen: replace(seen, request=seen.request and request(seen.request))


def _metadata(**changes: Any) -> Callable[[View], View]:
    return _request(lambda known: known.model_copy(update={"metadata": known.metadata.model_copy(update=changes)}))


def _spec(**changes: Any) -> Callable[[View], View]:
    return _request(lambda known: known.model_copy(update={"spec": known.spec.model_copy(update=changes)}))


def _with(**changes: Any) -> Callable[[View], View]:
    return lambda seen: replace(seen, **changes)


# In the order in which they win: what is more final, or nearer to the agent's own doing, first.
CAUSES: dict[str, tuple[Callable[[View], View], Reason]] = {
    "the pod is gone": (_with(pod=None), Reason.POD_DELETED),
    "the pod is being deleted": (_pod(terminating=True), Reason.POD_DELETED),
    "another pod has its name": (_pod(uid="another"), Reason.POD_DELETED),
    "the request is gone": (_request(lambda _: None), Reason.REQUEST_DELETED),
    "the request is being deleted": (_metadata(deletion_timestamp=NOW), Reason.REQUEST_DELETED),
    "another request has its name": (_metadata(uid="another"), Reason.REQUEST_DELETED),
    "the request asks for something else": (_spec(access=Access()), Reason.ISSUE_FAILED),
    "the pod has finished": (_pod(finished=True), Reason.POD_FINISHED),
    "the agent reports": (_spec(outcome="Failed"), Reason.TASK_RELEASED),
    "the time is over": (_with(grant=granted(not_after=NOW)), Reason.TTL_REACHED),
    "what was made is too much": (_with(progress=Progress(failure=BEYOND)), Reason.ISSUE_FAILED),
    "it cannot be delivered": (_with(progress=Progress(failure=SHARED)), Reason.DELIVERY_FAILED),
    "another pod mounts the Secret": (_with(sharers=("two",)), Reason.DELIVERY_FAILED),
    "a word that it rests on was taken back": (_with(taken_back=WORD), Reason.POLICY_CHANGED),
    "policy denies it": (_with(verdict=DENIED), Reason.POLICY_CHANGED),
}


@pytest.mark.parametrize("grant", [granted(), granted(delivered=False)], ids=["live", "opened"])
@pytest.mark.parametrize(("cause", "reason"), CAUSES.values(), ids=CAUSES)
def test_a_grant_ends(cause: Callable[[View], View], reason: Reason, grant: TaskGrant) -> None:
    ending = step(cause(view(grant)))
    assert isinstance(ending, End)
    assert (ending.reason, ending.grant.metadata.uid) == (reason, "grant-uid")
    assert ends(cause(view(grant)), NOW)


# A present failure is one or the other.
TOGETHER = [name for name in CAUSES if name != "it cannot be delivered"]


@pytest.mark.parametrize(("first", "second"), list(combinations(TOGETHER, 2)))
def test_of_two_causes_the_earlier_in_the_table_is_the_reason(first: str, second: str) -> None:
    ending = step(CAUSES[second][0](CAUSES[first][0](view(granted()))))
    assert isinstance(ending, End)
    assert ending.reason == CAUSES[first][1]


@pytest.mark.parametrize(("cause", "_"), CAUSES.values(), ids=CAUSES)
def test_a_grant_that_somebody_deleted_ends_as_deleted_whatever_else_is_so(
    cause: Callable[[View], View], _: Reason
) -> None:
    ending = step(replace(cause(view(granted())), grant=granted(terminating=True)))
    assert isinstance(ending, End)
    assert ending.reason == Reason.GRANT_DELETED


def test_a_grant_of_a_request_that_had_finished_before_ends() -> None:
    before = view(granted(delivered=False), request=finished(NOW - timedelta(minutes=1)))
    after = step(before)
    assert isinstance(after, End)
    assert after.reason is Reason.TTL_REACHED
