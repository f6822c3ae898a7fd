"""What the chart makes for those who run the operator: each object is there where its value says so."""

from __future__ import annotations

from typing import Any

from tests.cluster.api import SYSTEM, Json
from tests.cluster.conftest import Helm
from tests.cluster.test_chart import of_kind, render

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
    (container,) = pod(helm, hostNetwork=True, metrics={"podMonitor": {"enabled": True}})["containers"]
    assert container["ports"] == [{"name": "metrics", "containerPort": 8080}]


def test_a_pod_monitor_is_made_where_somebody_wants_one(helm: Helm) -> None:
    assert one(helm, "PodMonitor") is None
    monitor = one(helm, "PodMonitor", metrics={"podMonitor": {"enabled": True}, "labels": LABELS})
    assert monitor is not None
    assert monitor["metadata"]["namespace"] == SYSTEM
    assert LABELS.items() <= monitor["metadata"]["labels"].items()
    assert monitor["spec"]["selector"] == {"matchLabels": SELECTOR}
    assert monitor["spec"]["podMetricsEndpoints"] == [{"port": "metrics", "path": "/metrics"}]
