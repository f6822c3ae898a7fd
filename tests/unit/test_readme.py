"""The README is a promise: its commands are run by tests, its examples are what the API takes."""

from __future__ import annotations

import re

import yaml

from tests.cluster.local.places import ROOT
from valetkey.kinds import AgentPolicy
from valetkey.kinds.accessrequest import RequestSpec
from valetkey.kinds.agentpolicy import PolicySpec
from valetkey.policy.compile import CompiledPolicy, compile_policy

README = (ROOT / "README.md").read_text()
RUN_ELSEWHERE = {
    "make demo",  # tests/demo
    "make test",  # .ci/run
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def test_every_command_is_run_by_a_test() -> None:
    commands = {line for block in blocks("sh") for line in block.splitlines() if line}
    assert commands == RUN_ELSEWHERE
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("make test")
    makefile = (ROOT / "Makefile").read_text()
    assert "-m demo\n" in makefile


def test_every_example_is_one_that_the_api_takes() -> None:
    examples = {body["kind"]: body for block in blocks("yaml") for body in yaml.safe_load_all(block)}
    assert examples.keys() == {"AgentPolicy", "AccessRequest"}
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
