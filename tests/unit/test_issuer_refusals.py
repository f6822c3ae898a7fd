"""What it means for a grant that the API server does not make one of its objects."""

from __future__ import annotations

import pytest

from valetkey.errors import InvalidError, UnavailableError
from valetkey.issuers.objects import refusal
from valetkey.kinds.taskgrant import PlannedObject
from valetkey.kube.api import ApiError
from valetkey.reasons import Reason

ROLE = PlannedObject(kind="Role", namespace="shop", name="valetkey-u-0")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ApiError(404, "NotFound", 'namespaces "shop" not found'), "namespace shop does not exist"),
        (
            ApiError(403, "Forbidden", "unable to create new content in namespace shop because it is being terminated"),
            "namespace shop is being deleted",
        ),
        (ApiError(403, "Forbidden", "user is attempting to grant RBAC permissions not currently held"), "was refused"),
        (ApiError(422, "Invalid", "rules[0]: Invalid value"), "was refused"),
    ],
)
def test_what_would_be_refused_again_ends_the_grant_and_says_why(error: ApiError, says: str) -> None:
    told = refusal(error, ROLE)
    assert isinstance(told, InvalidError)
    assert told.reason is Reason.ORDER_INVALID
    assert says in told.message


def test_what_the_operators_roles_do_not_allow_is_tried_again_and_told() -> None:
    """An API server that has just started refuses everybody until it has read its roles."""
    said = (
        'roles.rbac.authorization.k8s.io is forbidden: User "system:serviceaccount:s:v" cannot create resource "roles"'
    )
    told = refusal(ApiError(403, "Forbidden", said), ROLE)
    assert isinstance(told, UnavailableError)
    assert said in told.message


@pytest.mark.parametrize("status", [0, 429, 500, 503])
def test_what_may_succeed_later_is_tried_again(status: int) -> None:
    assert isinstance(refusal(ApiError(status, "", ""), ROLE), UnavailableError)
