"""The rig: the chart with its operator, copies of the kinds for the bare client, and pods on a node of paper."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, TypeVar

import aiohttp
import yaml

from tests.bench.bare import GRANTS, GROUP, RIGHTS, Bare
from tests.bench.server import AGENTS, FLOOD, SHOP, Server
from tests.cluster.api import SYSTEM, Json, sessions, until
from tests.cluster.local.cluster import Cluster
from tests.cluster.local.places import ROOT, STATE

LOG = STATE / "bench-log"
OURS = "/apis/valetkey.dev/v1alpha1"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
CROWD = "crowd"
"""The account of the many that only live: what is measured beside them has an account, and limits, of its own."""
RULE = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}
VALUES: Json = {
    "cluster": "bench",
    "agentNamespaces": [AGENTS, FLOOD],
    "grantable": {"namespaces": [{"name": SHOP, "rules": [RULE]}]},
    "image": "valetkey:dev",
    "imagePullPolicy": "Never",
    "hostNetwork": True,
    "log": {"hostPath": str(LOG)},
    "limits": {"requests": 20000},
}
POLICY: Json = {
    "apiVersion": "valetkey.dev/v1alpha1",
    "kind": "AgentPolicy",
    "metadata": {"name": "bench"},
    "spec": {
        "effect": "Allow",
        "subjects": [
            {"name": "agents", "namespace": AGENTS, "serviceAccount": "default"},
            {"name": "crowd", "namespace": AGENTS, "serviceAccount": CROWD},
        ],
        "purposes": [{"name": "bench"}],
        "access": [{"name": "read", "kubernetes": {"scopes": [{"namespaces": [SHOP], "rules": [RULE]}]}}],
        "ttl": {"default": "5m", "max": "1h"},
        "limits": {"active": 10000},
    },
}


T = TypeVar("T")


class Rig:
    """Everything that the rows stand on."""

    def __init__(self, cluster: Cluster, say: Callable[[str], None]) -> None:
        self.cluster, self.say = cluster, say
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Rig:
        try:
            await self._begin()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def _begin(self) -> None:
        address, admin, others = sessions(self.cluster.kubeconfig)
        assert isinstance(admin.connector, aiohttp.TCPConnector)
        for session in (admin, others):
            await self._stack.enter_async_context(session)
        self.server = Server(address, admin, others)
        await self._clear()
        shutil.rmtree(LOG, ignore_errors=True)
        LOG.mkdir(parents=True)
        os.chown(LOG, 65532, 65532)
        for name in (AGENTS, FLOOD, SHOP, GRANTS):
            await self.server.send("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        self.say("installing the chart")
        await self._chart(VALUES)
        await self._copies()
        self.bare = Bare(self.server, STATE / "bench-bare.log", await self._bare_token())
        await self.server.send("POST", f"{OURS}/agentpolicies", POLICY)
        copy = POLICY | {"apiVersion": f"{GROUP}/v1alpha1"}
        await self.server.send("POST", f"/apis/{GROUP}/v1alpha1/agentpolicies", copy)
        await self.server.send("POST", "/api/v1/nodes", {"metadata": {"name": "bench-node"}})
        binding = {
            "metadata": {"name": "ask"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "valetkey-requester"},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": AGENTS} for name in ("default", CROWD)],
        }
        await self.server.send("POST", f"/api/v1/namespaces/{AGENTS}/serviceaccounts", {"metadata": {"name": CROWD}})
        await self.server.send("POST", f"{RBAC}/namespaces/{AGENTS}/rolebindings", binding)
        flooder = binding | {"subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": FLOOD}]}
        await self.server.send("POST", f"{RBAC}/namespaces/{FLOOD}/rolebindings", flooder)
        await asyncio.sleep(5)  # requests are trusted from three seconds after the guards were put in place

    async def __aexit__(self, *_: object) -> None:
        self.say("clearing up")
        await self._clear()
        await self._stack.aclose()

    async def replicas(self, number: int) -> None:
        """Scales the operator, and waits until so many are ready."""
        sets, pods = f"/apis/apps/v1/namespaces/{SYSTEM}/statefulsets", f"/api/v1/namespaces/{SYSTEM}/pods"
        await self.server.send("PATCH", f"{sets}/valetkey", {"spec": {"replicas": number}})

        async def there() -> bool:
            listed = await self.server.send("GET", f"{pods}?labelSelector=app.kubernetes.io/name=valetkey")
            states = [
                condition["status"]
                for pod in listed["items"]
                for condition in pod["status"].get("conditions", ())
                if condition["type"] == "Ready" and "deletionTimestamp" not in pod["metadata"]
            ]
            return len(listed["items"]) == number and states == ["True"] * number

        await until(there, f"{number} replicas to be ready", seconds=120)

    async def upgrade(self, values: Json) -> None:
        """Changes the chart's values, and waits until requests are trusted again."""
        await self._chart(values)
        await self.replicas(1)
        await asyncio.sleep(5)

    async def _chart(self, values: Json) -> None:
        chart = ("upgrade", "--install", "valetkey", str(ROOT / "charts" / "valetkey"), "--namespace", SYSTEM)
        await asyncio.to_thread(self._helm, *chart, "--create-namespace", "--wait", "--timeout", "120s", values=values)

    async def pods(self, prefix: str, number: int) -> list[Json]:
        """Pods of agents on the paper node, each with a Secret volume of its own."""
        return await spread(16, [self.pod(f"{prefix}-{index}") for index in range(number)])

    async def pod(self, name: str, namespace: str = AGENTS, account: str = "default") -> Json:
        """One pod that no kubelet runs."""
        spec = {
            "serviceAccountName": account,
            "nodeName": "bench-node",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "main", "image": "none"}],
        }
        return await self.make_pod(name, spec, namespace)

    async def make_pod(self, name: str, spec: Json, namespace: str = AGENTS) -> Json:
        """A pod of an agent with a volume for its credential."""
        volumes = [{"name": "valetkey", "secret": {"secretName": f"valetkey-{name}", "optional": True}}]
        body = {
            "metadata": {"name": name, "labels": {"valetkey.dev/agent": "true"}},
            "spec": {**spec, "volumes": [*volumes, *spec.get("volumes", [])]},
        }
        return await self.server.send("POST", f"/api/v1/namespaces/{namespace}/pods", body)

    async def token(self, pod: Json, audience: str | None = None) -> str:
        """A token bound to a pod, as its kubelet would get it; for the API server, or another audience."""
        meta = pod["metadata"]
        bound = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        path = f"/api/v1/namespaces/{meta['namespace']}/serviceaccounts/default/token"
        spec = {"expirationSeconds": 3600, "boundObjectRef": bound} | ({"audiences": [audience]} if audience else {})
        answer = await self.server.send("POST", path, {"spec": spec})
        token: str = answer["status"]["token"]
        return token

    def records(self) -> list[Json]:
        """The operator's log."""
        return [json.loads(line) for path in LOG.glob("*.jsonl") for line in path.read_bytes().splitlines()]

    def _helm(self, *arguments: str, values: Json | None = None) -> None:
        done = subprocess.run(
            ["helm", *arguments, *(["--values", "-"] if values else [])],
            input=json.dumps(values).encode() if values else None,
            env=self.cluster.environment,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr.decode())

    async def _copies(self) -> None:
        for path in sorted((ROOT / "crds").glob("*.yaml")):
            body = yaml.safe_load(path.read_text().replace("valetkey.dev", GROUP))
            names = body["spec"]["names"]
            names.pop("shortNames", None)
            names.pop("categories", None)
            definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
            await self.server.send("POST", definitions, body)

            async def served(plural: str = names["plural"]) -> bool:
                try:
                    answer = await self.server.send("GET", f"/apis/{GROUP}/v1alpha1/{plural}", missing=True)
                except RuntimeError:
                    return False  # its storage is being set up
                return "items" in answer

            await until(served, f"{names['plural']}.{GROUP} to be served")

    async def _bare_token(self) -> str:
        send, name = self.server.send, "bench-bare"
        await send("POST", f"/api/v1/namespaces/{GRANTS}/serviceaccounts", {"metadata": {"name": name}})
        await send("POST", f"{RBAC}/clusterroles", {"metadata": {"name": name}, "rules": RIGHTS})
        binding = {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": GRANTS}],
        }
        await send("POST", f"{RBAC}/clusterrolebindings", binding)
        path = f"/api/v1/namespaces/{GRANTS}/serviceaccounts/{name}/token"
        answer = await send("POST", path, {"spec": {"expirationSeconds": 7200}})
        return str(answer["status"]["token"])

    async def _emptied(self, path: str) -> bool:
        """Deletes a collection; where there are ten thousand the API server's own time is up before that is done."""
        try:
            await self.server.send("DELETE", path, missing=True)
        except RuntimeError as error:
            self.say(f"{error}"[:100])
            return False
        return True

    async def _clear(self) -> None:
        send = self.server.send
        for kind in ("accessrequests", "taskgrants"):
            for namespace in (AGENTS, FLOOD):
                await until(partial(self._emptied, f"{OURS}/namespaces/{namespace}/{kind}"), f"{kind} to go")
        await send("DELETE", f"{OURS}/agentpolicies", missing=True)

        async def no_grants() -> bool:
            listed = await send("GET", f"{OURS}/namespaces/{AGENTS}/taskgrants", missing=True)
            return not listed.get("items")

        await until(no_grants, "the grants to go, or for `make demo-down`", seconds=180)
        await asyncio.to_thread(
            self._helm, "uninstall", "valetkey", "--ignore-not-found", "--no-hooks", "--namespace", SYSTEM, "--wait"
        )
        # What a run that was cut off has left of the bare client's grants has finalizers that nobody takes away.
        copies = f"/apis/{GROUP}/v1alpha1/namespaces/{AGENTS}/taskgrants"
        for body in (await send("GET", copies, missing=True)).get("items") or ():
            await send(
                "PATCH", f"{copies}/{body['metadata']['name']}", {"metadata": {"finalizers": None}}, missing=True
            )
        for crd in (ROOT / "crds").glob("*.yaml"):
            copy = crd.stem.replace("valetkey.dev", GROUP)
            await send("DELETE", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{copy}", missing=True)
        await send("DELETE", f"/api/v1/namespaces/{AGENTS}/pods?gracePeriodSeconds=0", {"gracePeriodSeconds": 0})
        for name in (AGENTS, FLOOD, SHOP, GRANTS):
            await send("DELETE", f"/api/v1/namespaces/{name}", missing=True)
        await send("DELETE", "/api/v1/nodes/bench-node", missing=True)
        for kind in ("clusterroles", "clusterrolebindings"):
            await send("DELETE", f"{RBAC}/{kind}/bench-bare", missing=True)

        async def gone() -> bool:
            answers = [
                await send("GET", f"/api/v1/namespaces/{n}", missing=True) for n in (AGENTS, FLOOD, SHOP, GRANTS)
            ]
            return all(answer.get("reason") == "NotFound" for answer in answers)

        await until(gone, "the namespaces to go", seconds=600)


async def spread(number: int, work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Runs everything, so many at a time, and gives the results in order."""
    room = asyncio.Semaphore(number)

    async def one(job: Coroutine[Any, Any, T]) -> T:
        async with room:
            return await job

    return list(await asyncio.gather(*(one(job) for job in work)))
