"""Where a credential may be placed, as far as a request and its pod tell."""

from __future__ import annotations

import pytest

from tests.properties.life import pod, request
from tests.properties.world import World
from tests.unit.controller.test_trust import begun, turn
from valetkey.delivery.secret import SecretDelivery, plan
from valetkey.errors import InvalidError, UnavailableError
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.taskgrant import TaskGrant
from valetkey.kube import paths, pods
from valetkey.kube.api import ApiError, Json
from valetkey.reasons import Reason


@pytest.mark.parametrize(
    "name",
    [
        "valetkey-",
        "valetkey-A",
        "valetkey-a/../b",
        "valetkey-a b",
        "valetkey-a.",
        "valetkey-a-",
        "valetkey-" + "a" * 230,
    ],
)
def test_a_name_that_no_secret_can_have_is_refused_though_a_pod_mounts_it(name: str) -> None:
    world = World()
    body = pod("one")
    body["spec"]["volumes"][0]["secret"]["secretName"] = name
    owner = world.add("Pod", body)
    asked = world.add("AccessRequest", request("r", owner, "5m", "valetkey-x", world.now))
    del asked["spec"]["delivery"]
    with pytest.raises(InvalidError) as refused:
        plan(AccessRequest.model_validate(asked), pods.parse(owner), ())
    assert refused.value.reason is Reason.DELIVERY_CONFLICT


def test_a_name_stays_one_part_of_a_path() -> None:
    assert paths.item("Secret", "shop", "a/../b?c#d") == "/api/v1/namespaces/shop/secrets/a%2F..%2Fb%3Fc%23d"


class Forbidden(World):
    """A world in which the operator's rights in shop are gone already."""

    async def delete(self, path: str, *, uid: str) -> Json:
        if "/namespaces/shop/secrets" in path:
            raise ApiError(403, "Forbidden", "no RoleBinding any more")
        return await super().delete(path, uid=uid)


@pytest.mark.parametrize("goes", [True, False])
async def test_a_secret_in_a_namespace_that_goes_goes_with_it(goes: bool) -> None:
    world, process = begun("r")
    await turn(process)
    (grant,) = [TaskGrant.model_validate(body) for body in world.of("TaskGrant")]
    world.__class__ = Forbidden
    if goes:
        world.change("Namespace", "", "shop", {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
    delivery = SecretDelivery(world)
    if goes:
        await delivery.remove(grant)
    else:
        with pytest.raises(UnavailableError):
            await delivery.remove(grant)
