"""The threat model is a promise: the tests that it and the README name exist, and it speaks of every guard."""

from __future__ import annotations

import ast
import re
from collections import defaultdict

import pytest

from tests.cluster.local.places import ROOT

CHART = ROOT / "charts" / "valetkey"
THREATS = (CHART / "THREATS.md").read_text()
COLUMNS = "| Threat | Target | Invariant | Mitigation | Test that holds it |"
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
NAMED: dict[str, set[str]] = defaultdict(set)
for found in TEST.finditer(THREATS + (ROOT / "README.md").read_text()):
    NAMED[found[1]].add(found[2])


def rows() -> list[str]:
    """The rows of the tables that name tests."""
    tables = [part.split("\n\n")[0] for part in THREATS.split(COLUMNS + "\n")[1:]]
    return [row for table in tables for row in table.strip().splitlines()[1:]]


@pytest.mark.parametrize("path", sorted(NAMED))
def test_every_test_that_is_named_exists(path: str) -> None:
    module = ast.parse((ROOT / path).read_text())
    there = {node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    # What Hypothesis makes of a state machine is a class of tests that a name is given to.
    named = (target for node in module.body if isinstance(node, ast.Assign) for target in node.targets)
    there |= {target.id for target in named if isinstance(target, ast.Name)}
    assert NAMED[path] <= there, NAMED[path] - there
    assert all(name.startswith(("test_", "Test")) for name in NAMED[path])


def test_every_row_names_a_test_and_what_is_named_so_is_one() -> None:
    assert len(rows()) > 50
    for row in rows():
        cells = row.strip("|").split(" | ")
        assert len(cells) == COLUMNS.count("|") - 1, row
        assert TEST.search(cells[-1]), row
        assert not TEST.sub("", cells[-1]).strip(" |"), row


def test_every_guard_is_named() -> None:
    guards = {path.stem.removeprefix("_") for path in (CHART / "templates" / "guards").glob("_*.tpl")} - {"all"}
    assert {guard for guard in guards if f"| `{guard}` |" not in THREATS} == set()


def test_every_file_that_is_named_exists() -> None:
    package = ROOT / "operator" / "valetkey"
    for path in re.findall(r"`([\w/]+\.(?:py|json|md))`", THREATS):
        assert any((base / path).exists() for base in (ROOT, package, CHART)), path


def test_every_alert_and_value_that_is_named_exists() -> None:
    alerts = (CHART / "files" / "alerts.yaml").read_text()
    for alert in re.findall(r"`(Valetkey\w+)`", THREATS):
        assert f"alert: {alert}\n" in alerts, alert


def test_every_link_leads_to_a_heading() -> None:
    headings = {line[3:].lower().replace(" ", "-") for line in THREATS.splitlines() if line.startswith("## ")}
    assert set(re.findall(r"\]\(#([^)]+)\)", THREATS)) <= headings
