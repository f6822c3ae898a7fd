"""Alerts and dashboard ask for what the operator shows, and tell whoever is woken what to do."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import yaml

from tests.cluster.local.places import ROOT
from tests.unit.controller.test_held_up import begun, turn
from tests.unit.controller.test_metrics import watched
from valetkey.audit.record import Log
from valetkey.kube.clock import Clock

FILES = ROOT / "charts" / "valetkey" / "files"
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
BOARD: dict[str, Any] = json.loads((FILES / "dashboard.json").read_text())
EXPRESSIONS = {
    **{rule["alert"]: rule["expr"] for rule in ALERTS},
    **{
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in BOARD["panels"]
        for target in panel["targets"]
    },
}
GIVEN = {"instance", "le"}
"""Labels that Prometheus gives, and those of buckets."""

Shown = dict[str, dict[str, set[str]]]


@pytest.fixture(scope="module")
async def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """Every metric of an operator that has done its work, with its labels and their values."""
    log = Log(tmp_path_factory.mktemp("log"), writer="valetkey-0", cluster="", clock=Clock())
    world, process = await begun()
    metrics = watched(process, log)
    await turn(process)
    world.now += timedelta(minutes=2)
    await turn(process, 2)
    await log.close()
    names: Shown = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            labels = names.setdefault(sample.name, defaultdict(set))
            for label, value in sample.labels.items():
                labels[label].add(value)
    return names


def asked(expression: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Each metric of an expression with its matchers: label, operator, value."""
    for name, matchers in re.findall(r"\b((?:valetkey|process)_[a-z_]+)(?:\{([^}]*)\})?", expression):
        yield name, re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', matchers)


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
async def test_an_expression_names_only_what_the_operator_shows(shown: Shown, expression: str) -> None:
    names = list(asked(expression))
    assert names
    for name, matchers in names:
        assert name in shown, name
        for label, operator, value in matchers:
            for word in value.split("|") if operator.endswith("~") else [value]:
                assert word in shown[name][label], f"{name}: {label}={word}"


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
async def test_an_expression_groups_by_labels_that_are_there(shown: Shown, expression: str) -> None:
    labels = {label for name, _ in asked(expression) for label in shown[name]} | GIVEN
    for grouped in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
        assert set(grouped.split(", ")) <= labels


@pytest.mark.parametrize("panel", BOARD["panels"], ids=lambda panel: str(panel["title"]))
def test_a_legend_names_labels_that_its_expression_keeps(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        kept = set(re.findall(r"\w+", " ".join(re.findall(r"\b(?:by|on) \(([^)]*)\)", target["expr"]))))
        assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: str(rule["alert"]))
def test_an_alert_says_in_words_what_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["alert"].startswith("Valetkey")
    assert rule["labels"]["severity"] in ("critical", "warning")
    told = rule["annotations"]
    assert set(told) == {"summary", "description", "action"}
    assert all(told.values())
    assert len(told["summary"]) <= 100
    for text in told.values():
        assert "operator's log" not in text, "what kubectl logs shows is its output; the log is the record"
        assert set(re.findall(r"\{\{ (\S+)", text)) <= {"$value", "$labels.reason"}


def test_every_figure_of_the_operators_own_is_on_the_dashboard(shown: Shown) -> None:
    used = {name for panel in BOARD["panels"] for target in panel["targets"] for name, _ in asked(target["expr"])}
    whole = {re.sub(r"_(bucket|sum|count)$", "_bucket", name) for name in shown if name.startswith("valetkey_")}
    assert whole == {name for name in used if name.startswith("valetkey_")}


def test_every_alert_is_in_the_readme() -> None:
    section = (ROOT / "README.md").read_text().split("## Operations")[1].split("\n## ")[0]
    for rule in ALERTS:
        assert f"`{rule['alert']}`" in section


async def test_every_figure_is_in_the_readme(shown: Shown) -> None:
    section = (ROOT / "README.md").read_text().split("## Operations")[1].split("\n## ")[0]
    for name in shown:
        if name.startswith("valetkey_"):
            assert f"`{re.sub(r'_(bucket|sum|count)$', '', name)}`" in section
