"""The README is a promise: its examples are what the API takes, and what it names is there."""

from __future__ import annotations

import json
import re

import yaml
from typer.testing import CliRunner

from tests.cluster.local.places import ROOT
from valetkey.cli.app import app
from valetkey.kinds import AgentPolicy
from valetkey.kinds.accessapproval import ApprovalSpec
from valetkey.kinds.accessrequest import RequestSpec
from valetkey.kinds.agentpolicy import PolicySpec
from valetkey.kinds.demands import Approval
from valetkey.policy.compile import CompiledPolicy, compile_policy
from valetkey.policy.expressions import compile_expression
from valetkey.serve.answers import PATH
from valetkey.serve.bodies import LONGEST, Asked, AskedSpec, Change, Query, read
from valetkey.serve.pods import AUDIENCE

README = (ROOT / "README.md").read_text()
RUN_ELSEWHERE = {
    "make demo",  # tests/demo, without make
    "make test",  # .ci/run
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def test_blocks_of_sh_hold_only_the_two_commands_that_are_run_elsewhere() -> None:
    """What no test can run, for it needs docker or a cluster of one's own, is in blocks of `console`."""
    commands = {line for block in blocks("sh") for line in block.splitlines() if line}
    assert commands == RUN_ELSEWHERE
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("make test")
    makefile = (ROOT / "Makefile").read_text()
    assert "-m demo\n" in makefile


def test_every_target_and_file_of_the_commands_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^\$? ?make ([a-z-]+)|`(?:\w+=\w+ )?make ([a-z-]+)`", README, re.M):
        assert re.search(rf"^{''.join(target)}:", makefile, re.M), target
    console, *_ = blocks("console")
    for path in ("operator/Dockerfile", "charts/valetkey"):
        assert path in console
        assert (ROOT / path).exists(), path


def test_the_example_of_a_policys_test_is_run_as_it_stands() -> None:
    *_, console = blocks("console")
    example = ROOT / "crds" / "examples" / "restart"
    assert f"$ cp -r {example.relative_to(ROOT)} my-policy\n" in console
    shown = console.split("$ head -9 my-policy/cases.yaml\n")[1].split("$ ")[0]
    assert shown.splitlines() == (example / "cases.yaml").read_text().splitlines()[:9]
    said = console.split("$ valetkey test my-policy\n")[1].split("$ ")[0]
    assert CliRunner().invoke(app, ["test", str(example)]).output == said


def test_what_is_said_of_approvals_is_what_a_policy_takes() -> None:
    text = README.split("`approval: ")[1].split("`")[0]
    guardrail = README.split("such as `!approvals")[1].split("`")[0]
    assert Approval.model_validate(yaml.safe_load(text)).needed == 2
    for expression in (yaml.safe_load(text)["when"], f"!approvals{guardrail}"):
        compile_expression(expression)


def test_every_example_is_one_that_the_api_takes() -> None:
    examples = {body["kind"]: body for block in blocks("yaml") for body in yaml.safe_load_all(block)}
    assert examples.keys() == {"AgentPolicy", "AccessRequest", "AccessApproval", "Pod"}
    filled = {
        "subject": {"podName": "p", "podUID": "u"},
        "requester": {
            "username": "u",
            "serviceAccount": "s",
            "podName": "p",
            "podUID": "u",
            "nodeName": "n",
            "credentialID": "JTI=x",
        },
    }
    RequestSpec.model_validate(examples["AccessRequest"]["spec"] | filled)
    said, asked = examples["AccessApproval"], examples["AccessRequest"]
    assert ApprovalSpec.model_validate(said["spec"]).request.name == asked["metadata"]["name"]
    assert said["spec"]["policy"] == examples["AgentPolicy"]["metadata"]["name"]
    metadata = {"uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"} | examples["AgentPolicy"]["metadata"]
    policy = AgentPolicy.model_validate({"metadata": metadata, "spec": examples["AgentPolicy"]["spec"]})
    assert isinstance(compile_policy(policy), CompiledPolicy)
    assert PolicySpec.model_validate(yaml.safe_load((ROOT / "demo" / "policy.yaml").read_text())["spec"])


def test_the_calls_of_the_door_are_those_that_it_takes_with_the_token_that_it_wants() -> None:
    _, calls, _ = blocks("console")
    (pod,) = [body for block in blocks("yaml") for body in yaml.safe_load_all(block) if body["kind"] == "Pod"]
    (source,) = pod["spec"]["volumes"][0]["projected"]["sources"]
    (mount,) = pod["spec"]["containers"][0]["volumeMounts"]
    assert source["serviceAccountToken"]["audience"] == AUDIENCE
    assert f"{mount['mountPath']}/{source['serviceAccountToken']['path']}" in calls
    values = yaml.safe_load((ROOT / "charts" / "valetkey" / "values.yaml").read_text())["door"]
    assert f"https://{values['account']}.valetkey-system.svc:{values['port']}{PATH}\n" in calls
    for query in re.findall(r'\?([^"]+)"', calls):
        assert Query.of(query, "wait", "after").wait <= LONGEST
    asked, change = (text.replace("{…}", "{}") for text in re.findall(r"-d '(.*)'", calls))
    assert set(json.loads(asked)) <= {str(field.alias) for field in Asked.model_fields.values()}
    assert set(json.loads(asked)["spec"]) <= {str(field.alias) for field in AskedSpec.model_fields.values()}
    assert read(Change, change.encode()).outcome == "Succeeded"


def test_every_end_is_in_the_table() -> None:
    from valetkey.reasons import CONDITIONS

    ends = {str(reason) for reason in CONDITIONS["AccessRequest", "Finished"]["True"]}
    never_granted = {"RequestInvalid", "RequestDenied", "RequestExpired"}
    section = README.split("## What ends a grant")[1].split("\n## ")[0]
    assert {end for end in ends if end not in section} == never_granted


def test_every_end_of_the_table_is_one_that_a_test_brings_about() -> None:
    table = README.split("| Reason | When |")[1].split("\n\n")[0]
    rows = [row.split(" | ")[0].strip("| ") for row in table.splitlines()[2:]]
    assert len(rows) > 5
    tests = "".join(path.read_text() for path in (ROOT / "tests" / "e2e").glob("test_*.py"))
    assert {reason for row in rows for reason in row.split(", ") if f'"{reason}"' not in tests} == set()


def test_every_promise_names_its_tests_and_nothing_else() -> None:
    """That each of them exists, tests/unit/test_threats.py holds."""
    table = README.split("| Promise | Test |\n|---|---|\n")[1].split("\n\n")[0]
    assert len(table.splitlines()) > 20
    for row in table.splitlines():
        promise, tests = row.strip("| ").split(" | ")
        assert promise
        assert re.fullmatch(r"(`tests/[\w/]+\.py::\w+` ?)+", tests), row


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        path, _, heading = target.partition("#")
        assert (ROOT / path).exists(), target
        if heading:
            headings = {line.lstrip("# ").lower().replace(" ", "-") for line in (ROOT / path).read_text().splitlines()}
            assert heading in headings, target
