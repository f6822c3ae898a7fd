"""The door as the chart installs it: only where it is wanted, with few rights, and never without a certificate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.api import SYSTEM, Json
from tests.cluster.conftest import VALUES, Helm
from tests.cluster.test_chart import CHART, of_kind, render
from valetkey.settings import DoorSettings

DOOR: Json = {"enabled": True, "tlsSecret": "door-tls"}
SELECTOR = {"app.kubernetes.io/name": "valetkey-door", "app.kubernetes.io/instance": "valetkey"}
SUBJECT = {"kind": "ServiceAccount", "name": "valetkey-door", "namespace": SYSTEM}


def chart(helm: Helm, **door: Any) -> list[Json]:
    """What the chart makes with a door, and a network of the pods' own."""
    return render(helm, {"hostNetwork": False, "door": {**DOOR, **door}})


def own(objects: list[Json], kind: str) -> Json | None:
    """The door's object of a kind."""
    return of_kind(objects, kind).get("valetkey-door")


def pod(objects: list[Json]) -> Json:
    """Its pod."""
    body = own(objects, "Deployment")
    assert body is not None
    spec: Json = body["spec"]["template"]["spec"]
    return spec


def test_there_is_none_unless_it_is_wanted_and_its_account_is_on_its_leash_all_the_same(helm: Helm) -> None:
    objects = render(helm)
    assert [o for o in objects if "valetkey-door" in o["metadata"]["name"]] == []
    guards = of_kind(objects, "ValidatingAdmissionPolicy")
    (condition,) = guards["door-leash.valetkey.dev"]["spec"]["matchConditions"]
    assert f"system:serviceaccount:{SYSTEM}:valetkey-door" in condition["expression"]
    assert "valetkey-door" not in json.dumps(guards["request-attest.valetkey.dev"])
    believed = json.dumps(of_kind(chart(helm), "ValidatingAdmissionPolicy")["request-attest.valetkey.dev"])
    assert f"system:serviceaccount:{SYSTEM}:valetkey-door" in believed


@pytest.mark.parametrize(
    ("door", "refusal"),
    [
        ({"enabled": True}, "door.tlsSecret: agents send their tokens to the door"),
        ({"tlsSecret": "a b"}, "/door/tlsSecret"),
        ({"port": 0}, "/door/port"),
        ({"host": "localhost"}, "/door/host"),
        ({"replicas": -1}, "/door/replicas"),
        ({"tls": "x"}, "additional properties 'tls' not allowed"),
        ({"account": "valetkey"}, "valetkey is another account of the chart's"),
        ({"account": "valetkey-uninstall"}, "is another account of the chart's"),
    ],
    ids=str,
)
def test_wrong_values_are_refused(helm: Helm, door: Json, refusal: str) -> None:
    done = helm("template", "valetkey", str(CHART), "--namespace", SYSTEM, values={**VALUES, "door": door})
    assert done.returncode != 0
    assert refusal in done.stderr


def test_it_may_ask_whose_a_token_is_and_have_to_do_with_requests_where_agents_run_and_nothing_else(helm: Helm) -> None:
    objects = chart(helm)
    bound = [o for o in objects if SUBJECT in o.get("subjects", ())]
    rules = {o["metadata"]["name"]: o["rules"] for o in of_kind(objects, "ClusterRole").values()}
    found = sorted(
        (o["kind"], o["metadata"].get("namespace", ""), json.dumps(rules[o["roleRef"]["name"]])) for o in bound
    )
    asks = [{"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}]
    follows = [
        {
            "apiGroups": ["valetkey.dev"],
            "resources": ["accessrequests"],
            "verbs": ["create", "get", "watch", "patch"],
        }
    ]
    assert found == [
        ("ClusterRoleBinding", "", json.dumps(asks)),
        ("RoleBinding", "agents", json.dumps(follows)),
        ("RoleBinding", "agents-b", json.dumps(follows)),
    ]


def test_its_settings_are_what_it_reads(helm: Helm) -> None:
    config = own(chart(helm, port=9444, host="10.0.0.7"), "ConfigMap")
    assert config is not None
    text = config["data"]["settings.json"]
    assert set(json.loads(text)) == {field.alias for field in DoorSettings.model_fields.values()}
    assert DoorSettings.model_validate_json(text) == DoorSettings(
        agent_namespaces=("agents", "agents-b"),
        port=9444,
        host="10.0.0.7",
        log_format="json",
        account_directory=Path("/var/run/secrets/kubernetes.io/serviceaccount"),
        certificate_directory=Path("/etc/valetkey-door"),
        run_directory=Path("/run/valetkey"),
    )


def test_it_runs_confined_as_the_operator_does_with_a_short_token_of_its_own(helm: Helm) -> None:
    objects = chart(helm)
    door, operator = pod(objects), of_kind(objects, "StatefulSet")["valetkey"]["spec"]["template"]["spec"]
    assert door["serviceAccountName"] == "valetkey-door"
    assert door["automountServiceAccountToken"] is False
    assert door["securityContext"] == operator["securityContext"]
    (container,), pattern = door["containers"], operator["containers"][0]
    assert container["securityContext"] == pattern["securityContext"]
    assert container["command"] == [*pattern["command"][:3], "serve", *pattern["command"][4:]]
    assert container["resources"]["limits"]
    (token,) = [v["projected"]["sources"][0]["serviceAccountToken"] for v in door["volumes"] if v["name"] == "token"]
    assert token == {"path": "token", "expirationSeconds": 3600}
    writable = {m["mountPath"] for m in container["volumeMounts"] if not m.get("readOnly")}
    assert writable == {"/run/valetkey"}
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in door["volumes"]}


def test_nothing_that_is_for_the_operators_pods_is_for_its(helm: Helm) -> None:
    objects = render(helm, {"hostNetwork": False, "replicas": 2, "door": {**DOOR, "replicas": 2}})
    for kind in ("PodDisruptionBudget", "NetworkPolicy", "StatefulSet", "Deployment"):
        names = of_kind(objects, kind)
        selectors = {name: body["spec"].get("selector") or body["spec"]["podSelector"] for name, body in names.items()}
        if "valetkey" in selectors:
            assert selectors["valetkey"]["matchLabels"]["app.kubernetes.io/name"] == "valetkey"
        if "valetkey-door" in selectors:
            assert selectors["valetkey-door"]["matchLabels"] == SELECTOR
    template = of_kind(objects, "Deployment")["valetkey-door"]["spec"]["template"]
    assert SELECTOR.items() <= template["metadata"]["labels"].items()


def test_agents_are_let_in_on_its_port_and_nobody_else_is(helm: Helm) -> None:
    objects = chart(helm, port=9444)
    policy, service = own(objects, "NetworkPolicy"), own(objects, "Service")
    assert policy is not None
    assert service is not None
    expression = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["agents", "agents-b"]}
    assert policy["spec"] == {
        "podSelector": {"matchLabels": SELECTOR},
        "policyTypes": ["Ingress"],
        "ingress": [
            {
                "ports": [{"protocol": "TCP", "port": 9444}],
                "from": [{"namespaceSelector": {"matchExpressions": [expression]}}],
            }
        ],
    }
    assert service["spec"] == {"selector": SELECTOR, "ports": [{"name": "door", "port": 9444, "targetPort": 9444}]}


def test_a_drain_takes_one_of_several_at_a_time(helm: Helm) -> None:
    assert own(chart(helm), "PodDisruptionBudget") is None
    budget = own(chart(helm, replicas=2), "PodDisruptionBudget")
    assert budget is not None
    assert budget["spec"]["maxUnavailable"] == 1


def test_on_the_network_of_the_node_it_is_for_the_node_unless_somebody_says_otherwise(helm: Helm) -> None:
    objects = render(helm, {"hostNetwork": True, "door": DOOR})
    config = own(objects, "ConfigMap")
    assert config is not None
    assert json.loads(config["data"]["settings.json"])["host"] == "127.0.0.1"
    (container,) = pod(objects)["containers"]
    assert "ports" not in container
    assert container["readinessProbe"]["tcpSocket"] == {"port": 8444, "host": "127.0.0.1"}
    deployment = own(objects, "Deployment")
    assert deployment is not None
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}, "the port is taken"
    assert own(objects, "NetworkPolicy") is None
    (container,) = pod(chart(helm))["containers"]
    assert container["ports"] == [{"name": "door", "containerPort": 8444}]
    assert container["readinessProbe"]["tcpSocket"] == {"port": 8444}


def test_a_change_of_its_settings_restarts_it_and_one_of_the_operators_does_not(helm: Helm) -> None:
    def template(values: Json) -> Json:
        body: Json = of_kind(render(helm, values), "Deployment")["valetkey-door"]["spec"]["template"]
        return body

    assert template({"door": DOOR, "workers": 9}) == template({"door": DOOR})
    assert template({"door": {**DOOR, "port": 9444}}) != template({"door": DOOR})


def test_what_agents_ask_by_it_waits_with_what_their_namespace_asks_itself(helm: Helm) -> None:
    door = {"kind": "ServiceAccount", "serviceAccount": {"namespace": SYSTEM, "name": "valetkey-door"}}
    schemas = of_kind(chart(helm), "FlowSchema")
    plain = of_kind(render(helm), "FlowSchema")
    for name in ("valetkey-requests", "valetkey-outcomes"):
        (rule,), (before,) = schemas[name]["spec"]["rules"], plain[name]["spec"]["rules"]
        assert rule["subjects"] == [*before["subjects"], door]
    assert door not in schemas["valetkey-critical"]["spec"]["rules"][0]["subjects"]
