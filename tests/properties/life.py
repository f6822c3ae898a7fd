"""Life: the operator as a process over the world, with the bodies that it is given; whatever it knows, it has read."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from tests.properties.world import PUBLIC_KEY, World
from valetkey.controller.backends import Backends
from valetkey.controller.beginnings import Beginnings
from valetkey.controller.cache import Cache
from valetkey.controller.decisions import Decisions
from valetkey.controller.deliveries import Deliveries
from valetkey.controller.endings import Endings
from valetkey.controller.intake import Intake
from valetkey.controller.ledgers import Ledgers
from valetkey.controller.metrics import Metrics
from valetkey.controller.queue import Key, Queue
from valetkey.controller.relist import Relist
from valetkey.controller.reviews import Reviews
from valetkey.controller.steps import Times
from valetkey.controller.surroundings import Surroundings
from valetkey.controller.sweep import Sweep
from valetkey.controller.views import Views
from valetkey.controller.worker import Worker
from valetkey.delivery.secret import SecretDelivery
from valetkey.issuers.kubernetes import KubernetesIssuer
from valetkey.kinds.base import API_VERSION
from valetkey.kube.api import Json

GUARD: Json = {
    "kind": "ValidatingAdmissionPolicy",
    "metadata": {"name": "guard"},
    "spec": {"failurePolicy": "Fail"},
}
TIMES = Times(pending_ttl=timedelta(minutes=5), history_ttl=timedelta(hours=1), renew_after=timedelta(minutes=6))
SHORT, LONG = "2m", "15m"
PODS = ("one", "two")


class Untaken(Queue):
    """A queue that nobody takes from, for here every key has its turn: that others wait in it says nothing."""

    more_end = False


class Process:
    """One life of the operator: all that it knows, it has read from the world."""

    def __init__(
        self,
        world: World,
        namespaces: tuple[str, ...] = ("shop",),
        *,
        limit_requests: int = 2000,
        queue: Queue | None = None,
    ) -> None:
        self.world = world
        self.namespaces = namespaces
        self.woken: list[Key] = []
        """Keys that were to be looked at, in order; `work_woken` takes them, to `work` every key has its turn."""
        self.cache = Cache(self.woken.append, lambda: world.now)
        self.queue = queue or Untaken()
        self.metrics = Metrics()
        self.surroundings = Surroundings(
            world, expected=(GUARD,), schemas={}, cluster_roles=(), changed=self.wake_all, clock=lambda: world.now
        )
        self.intake = Intake(self.cache, self.woken.append)
        self.relist = Relist(world, self.cache, self.intake, self.surroundings, namespaces, settles_after=timedelta())
        self.ledgers = ledgers = Ledgers(world, namespace="valetkey-system", clock=lambda: world.now)
        views = Views(self.cache, self.surroundings, cluster="", limit_active=20, limit_requests=limit_requests)
        self.views = views
        issuer = KubernetesIssuer(
            world,
            namespace="valetkey-grants",
            targets=("shop",),
            server="https://api",
            certificate_authority="CA",
            clock=lambda: world.now,
        )
        self.backends = backends = Backends(
            api=world,
            cache=self.cache,
            issuers={"kubernetes": issuer},
            delivery=SecretDelivery(world),
            log=world,
            events=world,
            metrics=self.metrics,
            clock=lambda: world.now,
        )
        self.reviews = Reviews(backends, ledgers, namespaces=lambda: self.surroundings.namespaces)
        deliveries = Deliveries(backends)
        self.sweep = Sweep(backends, every=timedelta(minutes=5))
        self.worker = Worker(
            queue=self.queue,
            views=views,
            backends=backends,
            decisions=Decisions(backends, self.surroundings, views, ledgers),
            beginnings=Beginnings(backends, self.surroundings, views),
            deliveries=deliveries,
            endings=Endings(backends, deliveries),
            times=TIMES,
        )

    async def watch(self) -> None:
        """What watches bring, all of it; what is gone from the world is gone from the cache."""
        await self.surroundings.refresh()
        live = {body["metadata"]["uid"] for body in self.world.objects.values()}
        for key, request in self.cache.requests.notes():
            if request.uid not in live:
                self.intake.request_gone(key, request.uid)
        for key, grant in self.cache.grants.notes():
            if grant.uid not in live:
                self.intake.grant_gone(key, grant.uid)
        for key, approval in self.cache.approvals.notes():
            if approval.uid not in live:
                self.intake.approval_gone(key, approval.uid)
        for namespace in self.namespaces:
            for name, uid in self.cache.pods.uids(namespace).items():
                if uid not in live:
                    self.intake.pod_gone(Key(namespace, name), uid)
        takes = {
            "AccessRequest": self.intake.request,
            "TaskGrant": self.intake.grant,
            "AccessApproval": self.intake.approval,
            "Pod": self.intake.pod,
        }
        for kind, take in takes.items():
            for body in self.world.of(kind):
                take(body)

    async def work(self) -> None:
        """Every key once, as a worker would have it."""
        keys = {*self.cache.requests, *self.cache.grants, *self.cache.vanished}
        for key in sorted(keys):
            await self.worker.run(key)
            self.views.release(key)  # as its `work` does

    async def work_woken(self) -> None:
        """The keys that news has woken and no others, as workers would have them; nobody waits for a time here."""
        while self.woken:
            key = self.woken.pop(0)
            await self.worker.run(key)
            self.views.release(key)

    def wake_all(self) -> None:
        """What the operator does when its surroundings change, and when it begins to lead."""
        self.woken += sorted({*self.cache.requests, *self.cache.grants, *self.cache.vanished})


def a_world(world: World | None = None) -> World:
    """The guard, the namespace and a policy that allows the request below, a minute old."""
    world = world or World()
    world.add("ValidatingAdmissionPolicy", {**GUARD})
    world.add("Namespace", {"metadata": {"name": "shop", "namespace": ""}})
    world.add("AgentPolicy", policy(15))
    world.now += timedelta(minutes=1)
    return world


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
    """A request as admission leaves it; without a Secret for sealed delivery."""
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
            "delivery": {"secret": {"name": secret}} if secret else {"sealed": {"publicKey": PUBLIC_KEY}},
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


def approval(name: str, asked: Json, username: str, verdict: str = "Approve", policy: str = "fix", **spec: Any) -> Json:
    """What a person says on a request, as admission leaves it; `spec` is laid over it."""
    metadata = asked["metadata"]
    about = {"name": metadata["name"], "uid": metadata["uid"]}
    return {
        "metadata": {
            "name": name,
            "namespace": "shop",
            "ownerReferences": [{"apiVersion": API_VERSION, "kind": "AccessRequest", **about}],
        },
        "spec": {
            "request": about,
            "policy": policy,
            "verdict": verdict,
            "approver": {"username": username, "groups": ["people"]},
            **({"reason": "not now"} if verdict != "Approve" else {}),
            **spec,
        },
    }


def policy(minutes: int, backstop: str = "None", **spec: Any) -> Json:
    """Allows the request above, for so long at most; `spec` is laid over it."""
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
            "backstop": backstop,
            **spec,
        },
    }
