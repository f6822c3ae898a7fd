"""Guard secret-mounts: who names a credential carries the label."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.api import (
    ADMIN,
    Api,
    Json,
    merged,
    unique,
    until,
)
from tests.cluster.guards.attack import (
    PODS,
    accepted,
    everything,
    refused,
)
from tests.cluster.world import World, pod


def from_env(container: str) -> Json:
    """A pod of which a container reads a Secret into an environment variable."""
    env = [{"name": "a", "valueFrom": {"secretKeyRef": {"name": "valetkey-a", "key": "token"}}}]
    return {container: [{"name": "reads", "image": "none", "env": env}]}


def from_all_env(container: str) -> Json:
    """A pod of which a container reads a Secret as its environment."""
    return {container: [{"name": "reads", "image": "none", "envFrom": [{"secretRef": {"name": "valetkey-a"}}]}]}


def volume(**source: Any) -> Json:
    """A pod with a volume."""
    return {"volumes": [{"name": "a", **source}]}


MOUNTED: dict[str, Json] = {
    "volume": volume(secret={"secretName": "valetkey-a", "optional": True}),
    "projected": volume(projected={"sources": [{"secret": {"name": "valetkey-a"}}]}),
    "projected_second": volume(
        projected={"sources": [{"configMap": {"name": "a"}}, {"secret": {"name": "valetkey-a", "optional": True}}]}
    ),
    "second_volume": {
        "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "secret": {"secretName": "valetkey-a"}}]
    },
}
ELSEWHERE: dict[str, Json] = {
    "csi": volume(csi={"driver": "a.b", "nodePublishSecretRef": {"name": "valetkey-a"}}),
    "flex": volume(flexVolume={"driver": "a/b", "secretRef": {"name": "valetkey-a"}}),
    "azure": volume(azureFile={"shareName": "a", "secretName": "valetkey-a"}),
    "cephfs": volume(cephfs={"monitors": ["a"], "secretRef": {"name": "valetkey-a"}}),
    "cinder": volume(cinder={"volumeID": "a", "secretRef": {"name": "valetkey-a"}}),
    "iscsi": volume(
        iscsi={"targetPortal": "a", "iqn": "iqn.2001-04.a:b", "lun": 0, "secretRef": {"name": "valetkey-a"}}
    ),
    "rbd": volume(rbd={"monitors": ["a"], "image": "a", "secretRef": {"name": "valetkey-a"}}),
    "scaleio": volume(scaleIO={"gateway": "a", "system": "a", "volumeName": "a", "secretRef": {"name": "valetkey-a"}}),
    "storageos": volume(storageos={"volumeName": "a", "secretRef": {"name": "valetkey-a"}}),
    "env": from_env("containers"),
    "env_of_init": from_env("initContainers"),
    "all_env": from_all_env("containers"),
    "all_env_of_init": from_all_env("initContainers"),
    "pull": {"imagePullSecrets": [{"name": "valetkey-a"}]},
}


OWED = "carries the label valetkey.dev/agent"
NOWHERE = "named nowhere else"


@pytest.mark.parametrize("way", MOUNTED)
async def test_a_pod_that_names_a_credential_carries_the_label(api: Api, world: World, way: str) -> None:
    spec = MOUNTED[way]
    path = f"{PODS}?dryRun=All"
    for labels in ({}, {"valetkey.dev/agent": "false"}, {"app": "a"}):
        for caller in (ADMIN, world.editor, everything("system:serviceaccount:kube-system:replicaset-controller")):
            answer = await api.post(path, pod(unique("p"), labels=labels, **spec), by=caller)
            refused(answer, "secret-mounts", OWED)
    accepted(await api.post(path, pod(unique("p"), **spec), by=world.editor))


@pytest.mark.parametrize("way", ELSEWHERE)
async def test_a_pod_names_a_credential_in_a_volume_and_nowhere_else(api: Api, world: World, way: str) -> None:
    for labels in ({}, {"valetkey.dev/agent": "true"}):
        for caller in (ADMIN, world.editor, everything("system:serviceaccount:kube-system:replicaset-controller")):
            body = pod(unique("p"), labels=labels, **ELSEWHERE[way])
            refused(await api.post(f"{PODS}?dryRun=All", body, by=caller), "secret-mounts", NOWHERE)


async def test_a_pod_without_a_name_is_held_to_it_as_well(api: Api, world: World) -> None:
    body = merged(pod("a", labels={}, **MOUNTED["volume"]), {"metadata": {"name": None, "generateName": "a-"}})
    refused(await api.post(PODS, body, by=world.editor), "secret-mounts", OWED)


async def test_what_an_account_adds_to_its_pods_counts(api: Api, world: World) -> None:
    name = unique("pulls")
    await api.made(
        "/api/v1/namespaces/agents/serviceaccounts",
        {"metadata": {"name": name}, "imagePullSecrets": [{"name": "valetkey-a"}]},
    )

    async def added() -> bool:
        body = pod(unique("p"), labels={}, serviceAccountName=name)
        return (await api.post(f"{PODS}?dryRun=All", body))[0] == 403

    await until(added, "the account's pull Secret to be added")
    refused(await api.post(PODS, pod(unique("p"), labels={}, serviceAccountName=name)), "secret-mounts", NOWHERE)


async def test_other_pods_need_no_label(api: Api, world: World) -> None:
    for spec in (
        {},
        volume(secret={"secretName": "database"}),
        volume(secret={"secretName": "my-valetkey-a"}),
        volume(configMap={"name": "valetkey-a"}),
        volume(projected={"sources": [{"configMap": {"name": "valetkey-a"}}]}),
        {"imagePullSecrets": [{"name": "registry"}]},
    ):
        accepted(await api.post(f"{PODS}?dryRun=All", pod(unique("p"), labels={}, **spec), by=world.editor))


@pytest.mark.parametrize("labels", [{"valetkey.dev/agent": None}, {"valetkey.dev/agent": "false"}, None])
async def test_the_label_is_not_taken_away(api: Api, world: World, labels: Json | None) -> None:
    made = await world.pod("agents", unique("mounts"), **MOUNTED["volume"])
    path = f"{PODS}/{made['metadata']['name']}"
    change = {"metadata": {"labels": labels}}
    for caller in (world.editor, ADMIN):
        refused(await api.patch(path, change, by=caller), "secret-mounts", OWED)
    for subresource in ("status", "resize", "ephemeralcontainers"):
        await api.patch(f"{path}/{subresource}", change)
    _, live = await api.get(path)
    refused(await api.put(path, live | {"metadata": merged(live["metadata"], {"labels": labels})}), "secret-mounts")
    refused(await api.patch(f"{path}/status", change, by=everything("person")), "secret-mounts", OWED)
    assert live["metadata"]["labels"] == {"valetkey.dev/agent": "true"}
    accepted(await api.patch(path, {"metadata": {"labels": {"a": "b"}}}, by=world.editor))
    accepted(await api.patch(f"{path}/status", {"status": {"message": "as a kubelet does"}}))
    await api.gone(path)


async def test_the_label_of_other_pods_may_go(api: Api, world: World) -> None:
    made = await world.pod("agents", unique("mounts-nothing"))
    path = f"{PODS}/{made['metadata']['name']}"
    accepted(await api.patch(path, {"metadata": {"labels": {"valetkey.dev/agent": None}}}, by=world.editor))
    await api.gone(path)


@pytest.mark.parametrize(
    "reads",
    [
        {"env": [{"name": "a", "valueFrom": {"secretKeyRef": {"name": "valetkey-a", "key": "token"}}}]},
        {"envFrom": [{"secretRef": {"name": "valetkey-a"}}]},
    ],
)
async def test_a_debug_container_cannot_name_a_credential(api: Api, world: World, reads: Json) -> None:
    made = await world.pod("agents", unique("debugged"), labels={})
    path = f"{PODS}/{made['metadata']['name']}"
    change = {"spec": {"ephemeralContainers": [{"name": "debug", "image": "none", **reads}]}}
    answer = await api.patch(
        f"{path}/ephemeralcontainers", change, by=ADMIN, content="application/strategic-merge-patch+json"
    )
    refused(answer, "secret-mounts", NOWHERE)
    await api.gone(path)


async def test_the_label_is_not_taken_away_by_a_binding(api: Api, world: World) -> None:
    name = unique("unbound")
    await api.made(
        PODS, merged(pod(name, **MOUNTED["volume"]), {"spec": {"nodeName": None, "schedulerName": "nobody"}})
    )
    body: Json = {"metadata": {"name": name, "labels": {"valetkey.dev/agent": "no"}}, "target": {"name": "paper-node"}}
    for path in (f"{PODS}/{name}/binding", PODS.replace("/pods", "/bindings")):
        refused(await api.post(path, body), "secret-mounts", "says nothing of valetkey's labels")
    body["metadata"]["labels"] = {"topology.kubernetes.io/zone": "a"}
    accepted(await api.post(f"{PODS}/{name}/binding", body))
    await api.gone(f"{PODS}/{name}")
