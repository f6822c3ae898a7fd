"""The step machine under Hypothesis: it crashes at any await, restarts, and every promise still holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.properties.world import Crash, World
from valetkey.controller.backends import Backends
from valetkey.controller.beginnings import Beginnings
from valetkey.controller.cache import Cache
from valetkey.controller.endings import Endings
from valetkey.controller.grant import Times
from valetkey.controller.queue import Queue
from valetkey.controller.relist import Relist
from valetkey.controller.surroundings import Surroundings
from valetkey.controller.views import Views
from valetkey.controller.worker import Worker
from valetkey.delivery.secret import SecretDelivery
from valetkey.issuers.kubernetes import KubernetesIssuer
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.base import REQUEST_LABEL, SECRET_TYPE
from valetkey.kinds.taskgrant import TaskGrant
from valetkey.kube import pods
from valetkey.kube.client import Json
from valetkey.reasons import Reason, place_of

GUARD: Json = {
    "kind": "ValidatingAdmissionPolicy",
    "metadata": {"name": "guard"},
    "spec": {"failurePolicy": "Fail"},
}
TIMES = Times(pending_ttl=timedelta(minutes=5), history_ttl=timedelta(hours=1), renew_after=timedelta(minutes=6))
SHORT, LONG = "2m", "15m"
PODS = ("one", "two")


class Process:
    """One life of the operator: all that it knows, it has read from the world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.cache = Cache()
        self.queue = Queue()
        self.surroundings = Surroundings(
            world, expected=(GUARD,), cluster_roles=(), changed=lambda: None, clock=lambda: world.now
        )
        self.relist = Relist(world, self.cache, self.surroundings, ("shop",), lambda _: None)
        views = Views(self.cache, self.surroundings, cluster="", limit_active=20)
        issuer = KubernetesIssuer(
            world, namespace="valetkey-grants", targets=("shop",), server="https://api", certificate_authority="CA"
        )
        backends = Backends(
            api=world,
            cache=self.cache,
            issuers={"kubernetes": issuer},
            delivery=SecretDelivery(world),
            log=world,
            events=world,
            clock=lambda: world.now,
        )
        self.worker = Worker(
            queue=self.queue,
            views=views,
            backends=backends,
            beginnings=Beginnings(backends, self.surroundings, views),
            endings=Endings(backends),
            times=TIMES,
        )

    async def watch(self) -> None:
        """What watches bring, all of it; what is gone from the world is gone from the cache."""
        await self.surroundings.refresh()
        for kind, take, known in (
            ("AccessRequest", self.relist.take_request, self.cache.requests),
            ("TaskGrant", self.relist.take_grant, self.cache.grants),
        ):
            live = {body["metadata"]["uid"] for body in self.world.of(kind)}
            for key, found in known.items():
                if found.metadata.uid not in live:
                    known.remove(key, found.metadata.uid)
                    if isinstance(found, TaskGrant):
                        self.cache.vanished[key] = found
            for body in self.world.of(kind):
                take(body)
        live = {body["metadata"]["uid"] for body in self.world.of("Pod")}
        for pod in self.cache.pods.values():
            if pod.uid not in live:
                self.cache.pods.remove(pod.namespace, pod.name, pod.uid)
        for body in self.world.of("Pod"):
            self.cache.pods.put(pods.parse(body))

    async def work(self) -> None:
        """Every key once, as a worker would have it."""
        keys = {*self.cache.requests, *self.cache.grants, *self.cache.vanished}
        for key in sorted(keys):
            await self.worker.run(key)


class Machine(RuleBasedStateMachine):
    """Agents, people, time and faults on one side; the operator, which dies a lot, on the other."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.causes: dict[str, set[str]] = {}
        self.crashes = 0
        self.world.add("ValidatingAdmissionPolicy", {**GUARD})
        self.world.add("Namespace", {"metadata": {"name": "shop", "namespace": ""}})
        self.world.add("AgentPolicy", policy(15))
        self.world.now += timedelta(minutes=1)
        self.world.now = self.world.now.replace(microsecond=0)
        for name in PODS:
            self.world.add("Pod", pod(name))
        self.process = Process(self.world)
        self.loop = asyncio.new_event_loop()
        self.count = 0
        self.operate(fuse=None, after=False, faults=[], fresh=True)

    # -- the operator ----------------------------------------------------------------------------------------------

    @rule(
        fuse=st.none() | st.integers(1, 40),
        after=st.booleans(),
        faults=st.lists(st.sampled_from([0, 0, 0, 0, 409, 429, 500]), max_size=12),
        fresh=st.booleans(),
    )
    def operate(self, fuse: int | None, after: bool, faults: list[int], fresh: bool) -> None:
        world = self.world
        if fresh:
            self.run(self.process.watch)
        world.fuse, world.fuse_after, world.faults = fuse, after, faults
        try:
            self.run(self.process.work)
        except Crash:
            self.crashes += 1
        crashed = world.dead
        world.fuse, world.dead, world.faults = None, False, []
        if crashed:
            self.process = Process(world)
            self.run(self.process.relist.read_all)

    @rule(minutes=st.sampled_from([0.1, 1.0, 3.0, 7.0]))
    def time_passes(self, minutes: float) -> None:
        self.world.now += timedelta(minutes=minutes)
        for grant in self.live_grants():
            if self.world.now >= datetime.fromisoformat(grant["spec"]["order"]["notAfter"]):
                self.cause(grant, Reason.TTL_REACHED)

    # -- agents and people -----------------------------------------------------------------------------------------

    @rule(owner=st.sampled_from(PODS), ttl=st.sampled_from([SHORT, LONG]), secret=st.sampled_from(["a", "b"]))
    def an_agent_asks(self, owner: str, ttl: str, secret: str) -> None:
        found = self.world.objects.get(("Pod", "shop", owner))
        if found is not None:
            self.count += 1
            body = request(f"r{self.count}", found, ttl, f"valetkey-{owner}-{secret}", self.world.now)
            self.world.add("AccessRequest", body)

    @precondition(lambda self: self.world.of("AccessRequest"))
    @rule(data=st.data())
    def an_agent_reports(self, data: st.DataObject) -> None:
        body = data.draw(st.sampled_from(self.world.of("AccessRequest")))
        if "outcome" not in body["spec"]:
            self.world.change("AccessRequest", "shop", body["metadata"]["name"], {"spec": {"outcome": "Succeeded"}})
            self.cause_of_request(body["metadata"]["uid"], Reason.TASK_RELEASED)

    @precondition(lambda self: self.world.of("AccessRequest"))
    @rule(data=st.data())
    def a_request_is_deleted(self, data: st.DataObject) -> None:
        body = data.draw(st.sampled_from(self.world.of("AccessRequest")))
        self.cause_of_request(body["metadata"]["uid"], Reason.REQUEST_DELETED)
        self.world.remove("AccessRequest", "shop", body["metadata"]["name"])

    @precondition(lambda self: self.live_grants())
    @rule(data=st.data(), by_force=st.booleans())
    def a_grant_is_deleted(self, data: st.DataObject, by_force: bool) -> None:
        body = data.draw(st.sampled_from(self.live_grants()))
        self.cause(body, Reason.GRANT_DELETED)
        if by_force:
            # The operator has seen it: somebody who can break guards does it while it runs.
            self.run(self.process.watch)
            self.world.change("TaskGrant", "shop", body["metadata"]["name"], {"metadata": {"finalizers": []}})
        self.world.remove("TaskGrant", "shop", body["metadata"]["name"])
        if by_force:
            self.run(self.process.watch)
            self.operate(fuse=None, after=False, faults=[], fresh=True)

    @rule(name=st.sampled_from(PODS), how=st.sampled_from(["finish", "delete", "replace"]))
    def a_pod_ends(self, name: str, how: str) -> None:
        found = self.world.objects.get(("Pod", "shop", name))
        if found is None:
            self.world.add("Pod", pod(name))
            return
        for grant in self.live_grants():
            if grant["spec"]["order"]["subject"]["podUID"] == found["metadata"]["uid"]:
                self.cause(grant, Reason.POD_FINISHED if how == "finish" else Reason.POD_DELETED)
        if how == "finish":
            self.world.change("Pod", "shop", name, {"status": {"phase": "Succeeded"}})
            return
        self.world.remove("Pod", "shop", name)
        if how == "replace":
            self.world.add("Pod", pod(name))

    @rule(minutes=st.sampled_from([1, 15]))
    def the_policy_changes(self, minutes: int) -> None:
        known = self.world.objects["AgentPolicy", "", "fix"]
        generation = known["metadata"]["generation"] + 1
        spec = policy(minutes)["spec"]
        self.world.change("AgentPolicy", "", "fix", {"metadata": {"generation": generation}, "spec": spec})
        if minutes == 1:
            for grant in self.live_grants():
                self.cause(grant, Reason.POLICY_CHANGED)
            for body in self.world.of("AccessRequest"):
                self.cause_of_request(body["metadata"]["uid"], Reason.POLICY_CHANGED)

    @rule(name=st.sampled_from(PODS))
    def somebody_takes_the_name_of_the_secret(self, name: str) -> None:
        place = ("Secret", "shop", f"valetkey-{name}-b")
        if place not in self.world.objects:
            body = {"metadata": {"name": place[2], "namespace": "shop"}, "type": "Opaque", "data": {"theirs": "eA=="}}
            self.world.add("Secret", body)

    # -- promises --------------------------------------------------------------------------------------------------

    @invariant()
    def every_live_credential_is_named_by_a_grant(self) -> None:
        named = {grant["spec"]["plan"]["kubernetes"]["account"]["name"] for grant in self.world.of("TaskGrant")}
        named |= {
            grant.spec.plan.kubernetes.account.name
            for grant in self.process.cache.vanished.values()
            if grant.spec.plan.kubernetes
        }
        for kind in ("ServiceAccount", "Role", "RoleBinding"):
            for body in self.world.of(kind):
                assert f"valetkey-{body['metadata']['labels'][REQUEST_LABEL]}" in named, (kind, body)

    @invariant()
    def no_grant_has_two_credentials_within_reach(self) -> None:
        live = self.world.live_tokens()
        renewed = {record["request_uid"] for record in self.world.records if record.get("message") == "renewal"}
        within: dict[str, set[str]] = {}
        for uid, token in self.world.placed:
            if token in live and uid not in renewed:
                within.setdefault(uid, set()).add(token)
        assert all(len(tokens) == 1 for tokens in within.values()), within

    @invariant()
    def a_secret_of_others_is_as_it_was(self) -> None:
        for body in self.world.of("Secret"):
            assert body["type"] == SECRET_TYPE or body["data"] == {"theirs": "eA=="}

    def teardown(self) -> None:
        """Everything ends, and for the reason that began the end."""
        for _ in range(12):
            self.time_passes(7.0)
            self.operate(fuse=None, after=False, faults=[], fresh=True)
            self.operate(fuse=None, after=False, faults=[], fresh=True)
        world = self.world
        assert not world.of("TaskGrant")
        for kind in ("ServiceAccount", "Role", "RoleBinding"):
            assert not world.of(kind), (kind, world.of(kind))
        assert all(body["type"] != SECRET_TYPE for body in world.of("Secret"))
        assert not world.live_tokens()
        for body in world.of("AccessRequest"):
            assert AccessRequest.model_validate(body).finished, body
        self.check_reasons()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def check_reasons(self) -> None:
        ends: dict[str, str] = {}
        for record in self.world.records:
            uid = record.get("grant")
            if uid is None or record["reason"] == "CredentialRevoked":
                continue
            if place_of(Reason(record["reason"]))[1] == "Finished":
                ends[uid] = record["reason"]
        for record in self.world.records:
            if record["reason"] == "CredentialRevoked":
                uid = record["grant"]
                assert record["message"].startswith(ends[uid]), (record, ends)
                if ends[uid] not in (Reason.DELIVERY_FAILED, Reason.ISSUE_FAILED):
                    assert ends[uid] in self.causes.get(record["request_uid"], ()), (record, self.causes)

    # -- inside ----------------------------------------------------------------------------------------------------

    def run(self, work: Callable[[], Any]) -> None:
        self.loop.run_until_complete(work())

    def live_grants(self) -> list[Json]:
        return [body for body in self.world.of("TaskGrant") if "deletionTimestamp" not in body["metadata"]]

    def cause(self, grant: Json, reason: Reason) -> None:
        self.cause_of_request(grant["spec"]["order"]["requestUID"], reason)

    def cause_of_request(self, uid: str, reason: Reason) -> None:
        self.causes.setdefault(uid, set()).add(reason)


def pod(name: str) -> Json:
    """A running agent with two volumes."""
    return {
        "metadata": {"name": name, "namespace": "shop", "labels": {"valetkey.dev/agent": "true"}},
        "spec": {
            "serviceAccountName": "fixer",
            "nodeName": "n",
            "volumes": [
                {"name": "valetkey", "secret": {"secretName": f"valetkey-{name}-a", "optional": True}},
                {"name": "other", "secret": {"secretName": f"valetkey-{name}-b", "optional": True}},
            ],
        },
        "status": {"phase": "Running"},
    }


def request(name: str, owner: Json, ttl: str, secret: str, now: datetime) -> Json:
    """A request as admission leaves it."""
    metadata = owner["metadata"]
    return {
        "metadata": {
            "name": name,
            "namespace": "shop",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}],
        },
        "spec": {
            "task": {"id": name, "objective": "mend it", "purpose": "fix", "parameters": {}},
            "access": {
                "kubernetes": {
                    "scopes": [
                        {
                            "namespace": "shop",
                            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}],
                        }
                    ]
                }
            },
            "ttl": ttl,
            "delivery": {"secret": {"name": secret}},
            "subject": {"podName": metadata["name"], "podUID": metadata["uid"]},
            "requester": {
                "username": "system:serviceaccount:shop:fixer",
                "serviceAccount": "fixer",
                "podName": metadata["name"],
                "podUID": metadata["uid"],
                "nodeName": "n",
                "credentialID": "JTI=x",
                "via": "API",
            },
        },
    }


def policy(minutes: int) -> Json:
    """Allows the request above, for so long at most."""
    return {
        "metadata": {"name": "fix", "namespace": ""},
        "spec": {
            "effect": "Allow",
            "subjects": [{"name": "fixer", "namespace": "shop", "serviceAccount": "fixer"}],
            "purposes": [{"name": "fix"}],
            "access": [
                {
                    "name": "read",
                    "kubernetes": {
                        "scopes": [
                            {
                                "namespaces": ["shop"],
                                "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}],
                            }
                        ]
                    },
                }
            ],
            "ttl": {"default": "1m", "max": f"{minutes}m"},
        },
    }


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
