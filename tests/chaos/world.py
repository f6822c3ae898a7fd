"""What the faults are done to: a control plane with the chart, two replicas behind a proxy, agents and an auditor."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Callable
from contextlib import AsyncExitStack
from time import monotonic

from tests.bench.rig import POLICY, VALUES
from tests.bench.server import AGENTS, SHOP, Server
from tests.chaos.auditor import Auditor
from tests.chaos.lives import OURS, Lives, Weather
from tests.chaos.plane import PLANE, ThrowawayPlane
from tests.chaos.proxy import Proxy
from tests.chaos.replicas import NAMES, Replica
from tests.cluster.api import SYSTEM, Json, merged, sessions, until
from tests.cluster.local import processes
from tests.cluster.local.places import BIN, ROOT

PROXY = 26444
_RBAC = "/apis/rbac.authorization.k8s.io/v1"


class ChaosWorld:
    """All of it, for as long as it is entered; `seed` makes the same faults meet the same requests, more or less."""

    def __init__(self, say: Callable[[str], None], *, seed: int) -> None:
        self.say, self._seed = say, seed
        self.weather = Weather()
        self.kills = 0
        self.alive: dict[str, str] = {}
        """Credentials that worked when the API server had gone for longer than a token lives, by token."""
        self.outlived: dict[str, str] = {}
        """Credentials that worked longer than a token lives, by token."""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> ChaosWorld:
        try:
            await self._begin()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def leader(self) -> str:
        """Who leads, as the Leader says."""
        path = f"{OURS}/namespaces/{SYSTEM}/leaders/valetkey"
        body = await self._server.send("GET", path, missing=True)
        return str(body.get("spec", {}).get("holderIdentity", ""))

    async def kill_leader(self) -> None:
        """Kills whoever leads, if anybody does."""
        identity = await self.leader()
        for replica in self.replicas:
            if replica.identity == identity:
                await replica.kill()
                self.kills += 1

    def records(self, reason: str) -> int:
        """How many records of a reason there are in all logs."""
        needle = f'"reason":"{reason}"'.encode()
        return sum(path.read_bytes().count(needle) for one in self.replicas for path in one.log.glob("*.jsonl"))

    async def _begin(self) -> None:
        began = monotonic()
        self.say("starting a control plane of its own")
        self.plane = await self._stack.enter_async_context(ThrowawayPlane())
        address, admin, nobody = sessions(self.plane.kubeconfig)
        for session in (admin, nobody):
            await self._stack.enter_async_context(session)
        self._server = Server(address, admin, nobody)
        for name in (AGENTS, SHOP):
            await self._server.send("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        await self._server.send("POST", "/api/v1/nodes", {"metadata": {"name": "bench-node"}})
        self.say("installing the chart")
        sooner = {"sweepEvery": "5s", "historyTTL": "20s", "pendingTTL": "2m"}
        values = merged(VALUES, {"agentNamespaces": [AGENTS], "replicas": 0} | sooner)
        await asyncio.to_thread(self._install, values)
        await self._server.send("POST", f"{OURS}/agentpolicies", POLICY)
        binding = {
            "metadata": {"name": "ask"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "valetkey-requester"},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": AGENTS}],
        }
        await self._server.send("POST", f"{_RBAC}/namespaces/{AGENTS}/rolebindings", binding)
        self.proxy = await self._stack.enter_async_context(Proxy(PLANE.server, PROXY, seed=self._seed))
        for name in NAMES:
            processes.kill(f"chaos-{name}")  # what a run that was cut off has left
        self.replicas = [await self._replica(name) for name in NAMES]
        await self.replicas[0].try_clock()
        for replica in self.replicas:
            replica.keep_running()
            self._stack.push_async_callback(replica.stop)
        await until(self._led, "a replica to lead", seconds=60)
        path = f"/api/v1/namespaces/{SHOP}/configmaps/any"
        self.auditor = Auditor(PLANE.server, admin, nobody, agents=AGENTS, path=path)
        watching = asyncio.create_task(self.auditor.watch(), name="auditor")
        self._stack.callback(watching.cancel)
        self.lives = Lives(self._server, self.auditor, self.weather, seed=self._seed)
        await asyncio.sleep(4)  # requests are trusted from three seconds after the guards were put in place
        self.say(f"ready after {monotonic() - began:.0f} s")

    async def _led(self) -> bool:
        return bool(await self.leader())

    async def _replica(self, name: str) -> Replica:
        pods, account = f"/api/v1/namespaces/{SYSTEM}/pods", f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/valetkey"
        spec: Json = {
            "nodeName": "bench-node",
            "serviceAccountName": "valetkey",
            "automountServiceAccountToken": False,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "operator", "image": "none"}],
        }
        pod = await self._server.send("POST", pods, {"metadata": {"name": name}, "spec": spec})
        bound = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": pod["metadata"]["uid"]}
        asked = {"spec": {"expirationSeconds": 7200, "boundObjectRef": bound}}
        token = (await self._server.send("POST", f"{account}/token", asked))["status"]["token"]
        config = (await self._server.send("GET", f"/api/v1/namespaces/{SYSTEM}/configmaps/valetkey"))["data"]
        return Replica(pod, token, json.loads(config["settings.json"]), config["guards.json"], PROXY)

    def _install(self, values: Json) -> None:
        done = subprocess.run(
            [
                *(BIN / "helm", "install", "valetkey", ROOT / "charts" / "valetkey", "--namespace", SYSTEM),
                *("--create-namespace", "--values", "-"),
            ],
            input=json.dumps(values).encode(),
            env=os.environ | {"KUBECONFIG": str(self.plane.kubeconfig)},
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr.decode())
