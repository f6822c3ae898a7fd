"""`valetkey simulate`: what was decided is decided again, by the policies as they are and as they would be."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from tests.unit.policy.given import facts, policy, request
from valetkey.audit.record import Log
from valetkey.cli.app import app
from valetkey.kinds.agentpolicy import AgentPolicy


@pytest.fixture
async def recorded(tmp_path: Path) -> Path:
    """A log of two decisions and of something else."""
    log = Log(tmp_path / "log", writer="w", cluster="", clock=lambda: datetime.now(UTC))
    for name, cluster in (("west", "west"), ("east", "east")):
        fields = {"asked": request().to_api(), "facts": facts(cluster=cluster)}
        await log.write("PolicyMatched", request=f"shop-agents/{name}", **fields)
    await log.write("CredentialRevoked", request="shop-agents/west")
    await log.write("PolicyMatched", request="shop-agents/old", asked={"of": "another version"}, facts={})
    await log.close()
    return tmp_path / "log"


def written(path: Path, *policies: AgentPolicy) -> Path:
    bodies = [
        {"kind": "AgentPolicy", "metadata": {"name": one.metadata.name}, "spec": one.spec.to_api()} for one in policies
    ]
    path.write_text(yaml.safe_dump_all(bodies))
    return path


def simulated(recorded: Path, there: Path, changed: Path, *more: str) -> Result:
    arguments = ["simulate", "-f", str(changed), "--dir", str(recorded), "--policies", str(there), *more]
    return CliRunner().invoke(app, arguments)


def only_west(name: str = "shop-fixers") -> AgentPolicy:
    rule = {"name": "west", "expression": 'cluster == "west"', "message": "Only in the west."}
    return policy(name, validations=[rule])


async def test_what_a_changed_policy_would_decide_otherwise_is_shown(recorded: Path, tmp_path: Path) -> None:
    there, changed = written(tmp_path / "there.yaml", policy()), written(tmp_path / "changed.yaml", only_west())
    done = simulated(recorded, there, changed, "-o", "json")
    assert done.exit_code == 0, done.output
    (one,) = json.loads(done.output)
    assert one["request"] == "shop-agents/east"
    assert (one["before"], one["after"]) == ("Approved by shop-fixers", "Denied, ValidationFailed")
    assert one["message"] == "Only in the west."
    assert simulated(recorded, there, changed).output.endswith("1 of 3 decisions differ, 1 could not be read\n")


async def test_a_policy_beside_those_that_are_there_adds_to_them(recorded: Path, tmp_path: Path) -> None:
    there, changed = written(tmp_path / "there.yaml", only_west()), written(tmp_path / "new.yaml", policy("new"))
    done = simulated(recorded, there, changed, "-o", "json")
    assert {one["request"]: one["after"] for one in json.loads(done.output)} == {
        "shop-agents/west": "Approved by new",
        "shop-agents/east": "Approved by new",
    }


async def test_a_policy_can_be_taken_away(recorded: Path, tmp_path: Path) -> None:
    there, changed = written(tmp_path / "there.yaml", policy()), written(tmp_path / "new.yaml", only_west("west"))
    done = simulated(recorded, there, changed, "--without", "shop-fixers", "-o", "json")
    assert {one["request"]: one["after"] for one in json.loads(done.output)} == {
        "shop-agents/west": "Approved by west",
        "shop-agents/east": "Denied, ValidationFailed",
    }


async def test_what_changes_nothing_says_so(recorded: Path, tmp_path: Path) -> None:
    there = written(tmp_path / "there.yaml", policy())
    assert simulated(recorded, there, there).output == "0 of 3 decisions differ, 1 could not be read\n"


async def test_without_a_log_the_command_says_how_to_name_it(tmp_path: Path) -> None:
    there = written(tmp_path / "there.yaml", policy())
    done = simulated(tmp_path / "none", there, there)
    assert done.exit_code == 2
    assert "--dir" in done.output
