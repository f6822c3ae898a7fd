"""The sweep on the real cluster: what came late is removed, and nothing of a live grant."""

from __future__ import annotations

import uuid

from tests.cluster.api import GRANTS, SYSTEM, Json, until
from tests.e2e.agent import OURS, Agent

RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop"
ACCOUNTS = f"/api/v1/namespaces/{GRANTS}/serviceaccounts"


async def test_what_looks_like_a_grants_and_belongs_to_none_is_removed(agent: Agent) -> None:
    name = await agent.granted(spec={"ttl": "5m"})
    credential = await agent.credential()
    uid = str(uuid.uuid4())
    late: Json = {"labels": {"valetkey.dev/request": uid}}
    role: Json = {"metadata": late | {"name": f"valetkey-{uid}-0"}, "rules": []}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": f"valetkey-{uid}-0"}
    operator = await agent.api.token(SYSTEM, "valetkey", await agent.world.leader())
    await agent.api.made(ACCOUNTS, {"metadata": late | {"name": f"valetkey-{uid}"}}, by=operator)
    await agent.api.made(f"{RBAC}/roles", role)
    subject = {"kind": "ServiceAccount", "name": f"valetkey-{uid}", "namespace": GRANTS}
    binding = {"metadata": role["metadata"], "roleRef": reference, "subjects": [subject]}
    await agent.api.made(f"{RBAC}/rolebindings", binding)
    paths = (
        f"{ACCOUNTS}/valetkey-{uid}",
        f"{RBAC}/roles/valetkey-{uid}-0",
        f"{RBAC}/rolebindings/valetkey-{uid}-0",
    )

    async def swept() -> bool:
        return [(await agent.api.get(path))[0] for path in paths] == [404, 404, 404]

    await until(swept, "the sweep to remove what belongs to no grant", seconds=15)
    assert await agent.may(credential)
    grant = (await agent.api.get(f"{OURS}/namespaces/agents/taskgrants/{name}"))[1]
    assert "end" not in grant["status"]
