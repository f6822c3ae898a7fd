"""`valetkey test`: the examples decide as they say, and whatever differs is told."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from typer.testing import CliRunner, Result

from tests.cluster.local.places import ROOT
from tests.examples import TABLE, folders, table
from tests.unit.policy.given import request
from valetkey.cli.app import app
from valetkey.kinds.accessrequest import RequestSpec

EXAMPLES = folders()


def tried(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["test", *map(str, arguments)])


@pytest.mark.parametrize("example", EXAMPLES, ids=[path.name for path in EXAMPLES])
def test_every_example_decides_as_it_says(example: Path) -> None:
    done = tried(example)
    assert done.exit_code == 0, done.output
    assert done.output.endswith(" passed, 0 failed\n")


def test_the_table_of_what_the_examples_decide_is_current() -> None:
    assert TABLE.read_text() == table(), "make examples"


@pytest.mark.parametrize("example", EXAMPLES, ids=[path.name for path in EXAMPLES])
def test_the_request_of_every_example_can_be_read(example: Path) -> None:
    bodies = [yaml.safe_load(path.read_text()) for path in example.glob("*.yaml") if path.stem in ("request", "work")]
    filled_in = {field: request().to_api()[field] for field in ("subject", "requester")}
    for body in bodies:
        RequestSpec.model_validate(body["spec"] | filled_in)
    assert bodies


def changed(tmp_path: Path, old: str, new: str) -> Path:
    """The first example with one thing changed."""
    for path in (ROOT / "crds" / "examples" / "restart").iterdir():
        text = path.read_text()
        (tmp_path / path.name).write_text(text.replace(old, new))
    return tmp_path


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("expect: Approved", "expect: Denied", "expect is Approved, not Denied"),
        ("policy: restart", "policy: other", "policy is restart, not other"),
        ("reason: NoPolicyMatched", "reason: PolicyDenied", "reason is NoPolicyMatched, not PolicyDenied"),
        ("ttl: 5m\n", "ttl: 6m\n", "ttl is 5m, not 6m"),
    ],
)
def test_what_is_decided_otherwise_fails_and_is_told(tmp_path: Path, old: str, new: str, says: str) -> None:
    done = tried(changed(tmp_path, old, new), "-o", "json")
    assert done.exit_code == 1
    assert says in {one["wrong"] for one in json.loads(done.output)}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("kind: PolicyTest", "kind: Other", "has no cases"),
        ("expect: Approved", "expect: Perhaps", "cases.0.expect"),
        ("expect: Approved", "expcet: Approved", "expcet"),
        ("effect: Allow", "effect: Perhaps", "spec.effect"),
        (
            "  ttl: {default",
            "  validations: [{name: a, expression: nothing, message: never}]\n  ttl: {default",
            "undeclared",
        ),
        ("kind: PolicyTest", "kind: [", "cases.yaml"),
    ],
    ids=[
        "no cases",
        "an outcome that is none",
        "a misspelt field",
        "a policy that is none",
        "a rule that is none",
        "no YAML",
    ],
)
def test_what_cannot_be_read_is_named_and_is_no_result(tmp_path: Path, old: str, new: str, says: str) -> None:
    directory = changed(tmp_path, old, new)
    done = tried(directory)
    assert done.exit_code == 2
    assert says in done.output


def test_a_policy_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    directory = changed(tmp_path, "", "")
    (directory / "again.yaml").write_text((directory / "policy.yaml").read_text())
    done = tried(directory)
    assert done.exit_code == 2
    assert "policy restart is in" in done.output


def test_the_results_are_written_for_ci_as_junit(tmp_path: Path) -> None:
    directory = changed(tmp_path, "expect: Approved", "expect: Denied")
    report = tmp_path / "junit.xml"
    assert tried(directory, "--junit", report).exit_code == 1
    suite = ElementTree.parse(report).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("4", "1")
    (failure,) = suite.iter("failure")
    assert failure.get("message") == "expect is Approved, not Denied"
