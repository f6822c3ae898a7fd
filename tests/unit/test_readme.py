"""The README is a promise: its examples are what the API takes, and what it names is there."""

from __future__ import annotations

import re

import yaml

from tests.cluster.local.places import ROOT
from valetkey.kinds import AgentPolicy
from valetkey.kinds.accessapproval import ApprovalSpec
from valetkey.kinds.accessrequest import RequestSpec
from valetkey.kinds.agentpolicy import PolicySpec
from valetkey.kinds.demands import Approval
from valetkey.policy.compile import CompiledPolicy, compile_policy
from valetkey.policy.expressions import compile_expression

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
    (console,) = blocks("console")
    for path in ("operator/Dockerfile", "charts/valetkey"):
        assert path in console
        assert (ROOT / path).exists(), path


def test_what_is_said_of_approvals_is_what_a_policy_takes() -> None:
    text = README.split("`approval: ")[1].split("`")[0]
    guardrail = README.split("such as `!approvals")[1].split("`")[0]
    assert Approval.model_validate(yaml.safe_load(text)).needed == 2
    for expression in (yaml.safe_load(text)["when"], f"!approvals{guardrail}"):
        compile_expression(expression)


def test_every_example_is_one_that_the_api_takes() -> None:
    examples = {body["kind"]: body for block in blocks("yaml") for body in yaml.safe_load_all(block)}
    assert examples.keys() == {"AgentPolicy", "AccessRequest", "AccessApproval"}
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


def test_every_end_is_in_the_table() -> None:
    from valetkey.reasons import CONDITIONS

    ends = {str(reason) for reason in CONDITIONS["AccessRequest", "Finished"]["True"]}
    never_granted = {"RequestInvalid", "RequestDenied", "RequestExpired"}
    section = README.split("## What ends a grant")[1].split("\n## ")[0]
    assert {end for end in ends if end not in section} == never_granted


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
