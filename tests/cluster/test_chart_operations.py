"""What the chart makes for those who run the operator: each object is there where its value says so."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.cluster.api import SYSTEM, Api, Json
from tests.cluster.conftest import VALUES, Helm
from tests.cluster.test_chart import CHART, of_kind, render
from tests.cluster.world import World

LABELS = {"release": "kube-prometheus-stack"}
SELECTOR = {"app.kubernetes.io/name": "valetkey", "app.kubernetes.io/instance": "valetkey"}


def one(helm: Helm, kind: str, **values: Any) -> Json | None:
    """The chart's object of a kind, with a network of the pods' own; None where there is none."""
    found = of_kind(render(helm, {"hostNetwork": False, **values}), kind)
    (body,) = found.values() if found else (None,)
    return body


def pod(helm: Helm, **values: Any) -> Json:
    """The operator's pod."""
    body = one(helm, "StatefulSet", **values)
    assert body is not None
    spec: Json = body["spec"]["template"]["spec"]
    return spec


def test_the_metrics_have_a_port_that_monitors_find_by_name(helm: Helm) -> None:
    (container,) = pod(helm)["containers"]
    assert container["ports"] == [{"name": "metrics", "containerPort": 8080}]
    (container,) = pod(helm, metrics={"port": 9464})["containers"]
    assert container["ports"] == [{"name": "metrics", "containerPort": 9464}]
    (container,) = pod(helm, metrics={"port": 0})["containers"]
    assert "ports" not in container


def test_on_the_network_of_the_node_no_port_keeps_replicas_apart_unless_they_are_monitored_there(helm: Helm) -> None:
    (container,) = pod(helm, hostNetwork=True)["containers"]
    assert "ports" not in container
    monitored = {"host": "0.0.0.0", "podMonitor": {"enabled": True}}
    (container,) = pod(helm, hostNetwork=True, metrics=monitored)["containers"]
    assert container["ports"] == [{"name": "metrics", "containerPort": 8080}]


@pytest.mark.parametrize(
    ("of_the_node", "given", "served"),
    [(False, "", ""), (True, "", "127.0.0.1"), (True, "10.0.0.7", "10.0.0.7"), (False, "10.0.0.7", "10.0.0.7")],
)
def test_on_the_network_of_the_node_the_metrics_are_for_the_node_unless_somebody_says_otherwise(
    helm: Helm, of_the_node: bool, given: str, served: str
) -> None:
    config = of_kind(render(helm, {"hostNetwork": of_the_node, "metrics": {"host": given}}), "ConfigMap")["valetkey"]
    assert json.loads(config["data"]["settings.json"])["metricsHost"] == served


def test_a_pod_monitor_is_made_where_somebody_wants_one(helm: Helm) -> None:
    assert one(helm, "PodMonitor") is None
    monitor = one(helm, "PodMonitor", metrics={"podMonitor": {"enabled": True}, "labels": LABELS})
    assert monitor is not None
    assert monitor["metadata"]["namespace"] == SYSTEM
    assert LABELS.items() <= monitor["metadata"]["labels"].items()
    assert monitor["spec"]["selector"] == {"matchLabels": SELECTOR}
    assert monitor["spec"]["podMetricsEndpoints"] == [{"port": "metrics", "path": "/metrics"}]


def test_the_alerts_are_a_rule_where_somebody_wants_one_word_for_word(helm: Helm) -> None:
    assert one(helm, "PrometheusRule") is None
    rule = one(helm, "PrometheusRule", metrics={"rules": {"enabled": True}, "labels": LABELS})
    assert rule is not None
    assert LABELS.items() <= rule["metadata"]["labels"].items()
    assert rule["spec"] == yaml.safe_load((CHART / "files/alerts.yaml").read_text())


def test_the_dashboard_is_where_the_sidecar_of_grafana_finds_it(helm: Helm) -> None:
    assert "valetkey-dashboard" not in of_kind(render(helm), "ConfigMap")
    objects = render(helm, {"metrics": {"dashboard": {"enabled": True}, "labels": LABELS}})
    board = of_kind(objects, "ConfigMap")["valetkey-dashboard"]
    assert {"grafana_dashboard": "1", **LABELS}.items() <= board["metadata"]["labels"].items()
    assert json.loads(board["data"]["valetkey.json"]) == json.loads((CHART / "files/dashboard.json").read_text())


def test_everything_is_still_yaml_with_everything_on(helm: Helm) -> None:
    switched = {name: {"enabled": True} for name in ("podMonitor", "rules", "dashboard")}
    done = helm(
        *("lint", "--strict", str(CHART)),
        values={**VALUES, "metrics": {**switched, "labels": LABELS, "host": "0.0.0.0"}, "replicas": 2},
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("replicas", [0, 1, 2, 3])
def test_a_drain_takes_one_of_several_replicas_at_a_time_and_a_single_one_at_once(helm: Helm, replicas: int) -> None:
    budget = one(helm, "PodDisruptionBudget", replicas=replicas)
    assert (budget is not None) == (replicas > 1)
    if budget is not None:
        assert budget["spec"] == {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": SELECTOR},
        }


def test_replicas_are_kept_on_different_nodes_where_there_is_a_choice(helm: Helm) -> None:
    (preferred,) = pod(helm)["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert preferred["podAffinityTerm"] == {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": SELECTOR},
    }
    zones: Json = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}
    assert pod(helm, affinity=zones)["affinity"] == zones


def test_another_replica_does_not_restart_those_that_are_there(helm: Helm) -> None:
    assert pod(helm, replicas=1) == pod(helm, replicas=2)


def test_nothing_comes_in_but_scrapes(helm: Helm) -> None:
    policy = one(helm, "NetworkPolicy")
    assert policy is not None
    assert policy["spec"] == {
        "podSelector": {"matchLabels": SELECTOR},
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"protocol": "TCP", "port": 8080}]}],
    }
    peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    policy = one(helm, "NetworkPolicy", networkPolicy={"from": peers}, metrics={"port": 9464})
    assert policy is not None
    assert policy["spec"]["ingress"] == [{"ports": [{"protocol": "TCP", "port": 9464}], "from": peers}]
    policy = one(helm, "NetworkPolicy", metrics={"port": 0})
    assert policy is not None
    assert "ingress" not in policy["spec"]


def test_no_network_policy_is_made_that_would_hold_nobody_or_that_nobody_wants(helm: Helm) -> None:
    assert one(helm, "NetworkPolicy", hostNetwork=True) is None
    assert one(helm, "NetworkPolicy", networkPolicy={"enabled": False}) is None


def test_what_revocation_consists_of_goes_before_the_rest(helm: Helm) -> None:
    objects = render(helm)
    schemas = of_kind(objects, "FlowSchema")
    critical, rest = schemas["valetkey-critical"]["spec"], schemas["valetkey"]["spec"]
    assert critical["matchingPrecedence"] < rest["matchingPrecedence"] < 9000, (
        "before the API server's own for accounts"
    )
    assert critical["priorityLevelConfiguration"] == {"name": "workload-high"}
    assert rest["priorityLevelConfiguration"]["name"] in of_kind(objects, "PriorityLevelConfiguration")
    operator = {"kind": "ServiceAccount", "serviceAccount": {"namespace": SYSTEM, "name": "valetkey"}}
    for schema in (critical, rest):
        (rule,) = schema["rules"]
        assert rule["subjects"] == [operator]
    (rule,) = critical["rules"]
    first = {
        (group, resource, verb)
        for one in rule["resourceRules"]
        for group in one["apiGroups"]
        for resource in one["resources"]
        for verb in one["verbs"]
    }
    rbac = "rbac.authorization.k8s.io"
    for must in (
        ("valetkey.dev", "taskgrants", "patch"),
        ("valetkey.dev", "leaders", "update"),
        ("", "secrets", "delete"),
        ("", "serviceaccounts", "delete"),
        ("batch", "jobs", "delete"),
        *((rbac, kind, "delete") for kind in ("roles", "rolebindings", "clusterroles", "clusterrolebindings")),
    ):
        assert must in first
    assert not {verb for group, _, verb in first if group != "valetkey.dev"} - {"get", "delete"}, (
        "nothing is made there"
    )
    assert not [resource for _, resource, _ in first if resource.startswith("accessrequests")], "agents make those"
    (rule,) = rest["rules"]
    assert rule["resourceRules"][0]["resources"] == ["*"]


def test_asking_and_ending_have_few_seats_each_never_more_and_a_flow_for_each_namespace(helm: Helm) -> None:
    objects = render(helm, {"agentNamespaces": ["shop", "lab"]})
    schemas = of_kind(objects, "FlowSchema")
    groups = [{"kind": "Group", "group": {"name": f"system:serviceaccounts:{name}"}} for name in ("shop", "lab")]
    levels = of_kind(objects, "PriorityLevelConfiguration")
    for name, level, shares, verbs in (
        ("requests", "valetkey-agents", 1, ["create"]),
        ("outcomes", "valetkey-outcomes", 5, ["update", "patch", "delete"]),
    ):
        spec = schemas[f"valetkey-{name}"]["spec"]
        assert spec["matchingPrecedence"] < 9000, "before the API server's own for accounts"
        assert spec["matchingPrecedence"] > schemas["valetkey"]["spec"]["matchingPrecedence"]
        assert spec["distinguisherMethod"] == {"type": "ByNamespace"}
        assert spec["priorityLevelConfiguration"] == {"name": level}
        (rule,) = spec["rules"]
        assert rule["subjects"] == groups
        assert rule["resourceRules"] == [
            {"apiGroups": ["valetkey.dev"], "resources": ["accessrequests"], "verbs": verbs, "namespaces": ["*"]}
        ]
        limited = levels[level]["spec"]["limited"]
        names = ("nominalConcurrencyShares", "lendablePercent", "borrowingLimitPercent")
        assert [limited[name] for name in names] == [shares, 0, 0]


async def test_the_api_server_puts_revocation_what_else_the_operator_does_and_what_agents_ask_under_their_own_flows(
    api: Api, world: World
) -> None:
    path = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas"
    names = {body["metadata"]["uid"]: body["metadata"]["name"] for body in (await api.get(path))[1]["items"]}
    operator, agent = await api.token(SYSTEM, "valetkey"), world.tokens["asker"]
    binding = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings/valetkey-none"
    asks = "/apis/valetkey.dev/v1alpha1/namespaces/agents/accessrequests"
    for method, path, body, by, expected in (
        ("DELETE", f"{binding}?dryRun=All", None, operator, (404, "valetkey-critical")),
        ("GET", binding, None, operator, (404, "valetkey-critical")),
        ("GET", "/api/v1/namespaces/agents/pods/none", None, operator, (404, "valetkey")),
        ("POST", f"{asks}?dryRun=All", world.request("asker"), agent, (201, "valetkey-requests")),
        ("DELETE", f"{asks}/none?dryRun=All", None, agent, (403, "valetkey-outcomes")),  # it may not, but is heard
    ):
        status, schema = await api.flow(method, path, body, by=by)
        assert (status, names.get(schema)) == expected, f"{method} {path}"


def test_priority_and_fairness_can_be_left_as_it_is(helm: Helm) -> None:
    objects = render(helm, {"priorityAndFairness": {"enabled": False}})
    assert not of_kind(objects, "FlowSchema", "PriorityLevelConfiguration")


def test_the_log_is_served_only_where_a_certificate_is_named_and_each_replica_has_its_own(helm: Helm) -> None:
    assert len(pod(helm)["containers"]) == 1
    assert one(helm, "Service") is None
    assert "tokenreviews" not in json.dumps(of_kind(render(helm), "ClusterRole"))
    values: Json = {"replicas": 2, "log": {"server": {"tlsSecret": "log-tls", "port": 9443}}}
    objects = render(helm, {"hostNetwork": False, **values})
    services = of_kind(objects, "Service")
    assert {
        name: body["spec"]["selector"]["statefulset.kubernetes.io/pod-name"] for name, body in services.items()
    } == {"valetkey-log-0": "valetkey-0", "valetkey-log-1": "valetkey-1"}
    role = of_kind(objects, "ClusterRole")["valetkey-auditor"]
    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["serviceaccounts/token"],
            "resourceNames": ["valetkey-auditor"],
            "verbs": ["create"],
        },
        {"apiGroups": [""], "resources": ["services"], "verbs": ["get", "list"]},
        {
            "apiGroups": [""],
            "resources": ["services/proxy"],
            "resourceNames": ["https:valetkey-log-0:log", "https:valetkey-log-1:log"],
            "verbs": ["get"],
        },
    ]
    bound = [o for o in objects if o.get("roleRef", {}).get("name") == "valetkey-auditor"]
    assert bound == [], "whoever installs decides who audits"


def test_what_serves_the_log_can_write_nothing_there_and_is_let_in_on_its_port_alone(helm: Helm) -> None:
    values: Json = {"log": {"server": {"tlsSecret": "log-tls", "port": 9443}}}
    operator, server = pod(helm, **values)["containers"]
    mounted = {mount["name"]: mount.get("readOnly", False) for mount in server["volumeMounts"]}
    assert mounted == {"settings": True, "token": True, "log": True, "certificate": True}
    assert server["securityContext"] == operator["securityContext"]
    assert server["ports"] == [{"name": "log", "containerPort": 9443}]
    assert server["resources"]["limits"]
    policy = one(helm, "NetworkPolicy", **values)
    assert policy is not None
    assert {"ports": [{"protocol": "TCP", "port": 9443}]} in policy["spec"]["ingress"]
    config = of_kind(render(helm, {"hostNetwork": True, **values}), "ConfigMap")["valetkey"]
    assert json.loads(config["data"]["settings.json"])["logServerHost"] == "127.0.0.1"
