"""An agent as the tests see it: its pod, what it asks, and what its credential can do."""

from __future__ import annotations

import base64
import time
from typing import Any

from tests.cluster.api import GRANTS, Caller, Json, claims, merged, until
from tests.cluster.world import World, pod, policy

OURS = "/apis/valetkey.dev/v1alpha1"
SHOP = "/apis/apps/v1/namespaces/shop/deployments"


class Agent:
    """One agent; its pod is on the paper node unless it is told otherwise."""

    def __init__(self, world: World, name: str, *, namespace: str = "agents") -> None:
        self.world, self.api, self.name, self.namespace = world, world.api, name, namespace
        self.secret = f"valetkey-{name}"
        self.policy = f"p-{name}"
        self.pod: Json = {}
        self.token = Caller()

    async def begin(self, **change: Any) -> None:
        """Makes its policy and its pod."""
        await self.api.made(f"{OURS}/agentpolicies", policy(self.policy, spec=merged(self._rules(), change)))
        await self.start()
        await self.policy_ready()

    async def policy_ready(self) -> None:
        """Waits until the operator has compiled the policy as it is now."""

        async def ready() -> bool:
            _, body = await self.api.get(f"{OURS}/agentpolicies/{self.policy}")
            return any(
                c.get("observedGeneration") == body["metadata"]["generation"]
                for c in body.get("status", {}).get("conditions", [])
            )

        await until(ready, f"policy {self.policy} to be judged")

    async def allow_namespace(self, namespace: str) -> None:
        """Lets its policy allow deployments to be read in one namespace."""
        rules = [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]}]
        scopes = [{"namespaces": [namespace], "rules": rules}]
        await self.api.patch(
            f"{OURS}/agentpolicies/{self.policy}",
            {"spec": {"access": [{"name": "one", "kubernetes": {"scopes": scopes}}]}},
        )
        await self.policy_ready()

    async def start(self, **spec: Any) -> None:
        """Makes its pod (again) and takes that pod's token."""
        volumes = [{"name": "valetkey", "secret": {"secretName": self.secret, "optional": True}}]
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        labels = spec.pop("labels", {"valetkey.dev/agent": "true"}) | {"agent": self.name}
        await self.api.gone(f"{path}/{self.name}")
        self.pod = await self.api.made(path, pod(self.name, labels=labels, **{"volumes": volumes, **spec}))
        await self.bind()

    async def bind(self) -> None:
        """Takes a token of its pod, which has a node by then."""

        async def placed() -> bool:
            _, self.pod = await self.api.get(f"/api/v1/namespaces/{self.namespace}/pods/{self.name}")
            return "nodeName" in self.pod["spec"]

        await until(placed, f"pod {self.name} to have a node")
        self.token = await self.api.token(self.namespace, "fixer", self.pod)

    async def leave(self) -> None:
        """Takes policy and pod away; its requests go with the pod."""
        await self.api.delete(f"{OURS}/agentpolicies/{self.policy}")
        await self.api.gone(f"/api/v1/namespaces/{self.namespace}/pods/{self.name}")
        await self.nothing_left()

    def request(self, **change: Any) -> Json:
        """A request of this agent, filled in as its client would, then changed."""
        self.world.pods[self.name], self.world.tokens[self.name] = self.pod, self.token
        body = self.world.request(self.name, **change)
        body["spec"]["requester"]["nodeName"] = self.pod["spec"]["nodeName"]
        return body

    async def ask(self, **change: Any) -> str:
        """Asks, and gives the request's name; admission must let it in."""
        body = await self.api.made(
            f"{OURS}/namespaces/{self.namespace}/accessrequests", self.request(**change), by=self.token
        )
        name: str = body["metadata"]["name"]
        return name

    async def granted(self, **change: Any) -> str:
        """Asks and waits until the access is there."""
        name = await self.ask(**change)
        await self.condition(name, "Ready", "True")
        return name

    async def condition(self, name: str, kind: str, status: str, *, seconds: float = 30) -> Json:
        """Waits for a condition of a request and gives it."""
        found: list[Json] = []

        async def there() -> bool:
            code, body = await self.api.get(f"{OURS}/namespaces/{self.namespace}/accessrequests/{name}")
            assert code == 200, f"request {name} is gone"
            conditions = body.get("status", {}).get("conditions", [])
            found[:] = [c for c in conditions if c["type"] == kind and c["status"] == status]
            over = [c for c in conditions if c["type"] == "Finished" and c["status"] == "True"]
            assert found or not over or kind != "Ready", f"{name} is over: {over[0]['reason']}: {over[0]['message']}"
            return bool(found)

        await until(there, f"{name} to be {kind}={status}", seconds=seconds)
        return found[0]

    async def finished(self, name: str, *, seconds: float = 30) -> Json:
        """Waits until a request is over and gives its `Finished`."""
        return await self.condition(name, "Finished", "True", seconds=seconds)

    async def status(self, name: str) -> Json:
        """A request's status."""
        _, body = await self.api.get(f"{OURS}/namespaces/{self.namespace}/accessrequests/{name}")
        return dict(body.get("status", {}))

    async def report(self, name: str, outcome: str = "Succeeded") -> None:
        """Says that the task is over."""
        status, body = await self.api.patch(
            f"{OURS}/namespaces/{self.namespace}/accessrequests/{name}", {"spec": {"outcome": outcome}}, by=self.token
        )
        assert status == 200, body

    async def credential(self) -> Caller:
        """The holder of what lies in its Secret."""
        status, body = await self.api.get(f"/api/v1/namespaces/{self.namespace}/secrets/{self.secret}")
        assert status == 200, body
        return Caller(token=base64.b64decode(body["data"]["token"]).decode())

    async def may(self, credential: Caller, path: str = f"{SHOP}/checkout") -> bool:
        """Whether a credential may read a path; a thing that is not there may still be read."""
        self.api.minted.add(str(credential.token))
        status, _ = await self.api.get(path, by=credential)
        return status in (200, 404)

    async def dead(self, credential: Caller, *, seconds: float = 5) -> float:
        """Waits until a credential is refused; gives the seconds that took."""
        began = time.monotonic()

        async def refused() -> bool:
            return not await self.may(credential)

        await until(refused, "the credential to be refused", seconds=seconds)
        return time.monotonic() - began

    async def nothing_left(self) -> None:
        """Waits until no grant of this pod is left, nor anything of one."""

        async def clean() -> bool:
            _, grants = await self.api.get(f"{OURS}/namespaces/{self.namespace}/taskgrants")
            uid = self.pod["metadata"]["uid"]
            return all(grant["spec"]["order"]["subject"]["podUID"] != uid for grant in grants["items"])

        await until(clean, f"the grants of {self.name} to go")

    async def traces(self, credential: Caller) -> list[str]:
        """What the API server still holds of a credential: its account, what is bound to it, and its timer."""
        account = claims(credential)["sub"].rpartition(":")[2]
        left = []
        for path in (account_path(credential), timer_path(credential)):
            left += [path] if (await self.api.get(path))[0] == 200 else []
        for kind in ("namespaces/shop/roles", "namespaces/shop/rolebindings", "clusterroles", "clusterrolebindings"):
            _, listed = await self.api.get(f"/apis/rbac.authorization.k8s.io/v1/{kind}")
            uid = account.removeprefix("valetkey-").removeprefix("t-")
            left += [item["metadata"]["name"] for item in listed["items"] if uid in item["metadata"]["name"]]
        return left

    def _rules(self) -> Json:
        """Its policy is about its own pod, and about no other test's."""
        subject = {
            "name": "this",
            "namespace": self.namespace,
            "serviceAccount": "fixer",
            "podSelector": {"matchLabels": {"agent": self.name}},
        }
        return {"ttl": {"default": "5m", "max": "15m"}, "subjects": [subject]}


def account_path(credential: Caller) -> str:
    """Where the account of a credential is."""
    return f"/api/v1/namespaces/{GRANTS}/serviceaccounts/{claims(credential)['sub'].rpartition(':')[2]}"


def timer_path(credential: Caller) -> str:
    """Where the timer of a credential is, if it has one."""
    account = claims(credential)["sub"].rpartition(":")[2]
    return f"/apis/batch/v1/namespaces/{GRANTS}/jobs/{account.replace('valetkey-t-', 'valetkey-')}"
