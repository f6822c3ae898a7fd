"""What the README shows an agent's author is run as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.local.places import ROOT
from tests.unit.agent.agents import entries
from tests.unit.agent.apiserver import Apiserver

BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)


def test_there_are_such_blocks() -> None:
    assert len(BLOCKS) == 2


@pytest.mark.parametrize("block", BLOCKS, ids=["with", "tool"])
def test_it_asks_for_what_it_says_runs_kubectl_with_it_and_leaves_nothing(
    server: Apiserver, block: str, tmp_path: Path
) -> None:
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/ran; cat "$KUBECONFIG" > {tmp_path}/config\n')
    kubectl.chmod(0o755)
    account = {"VALETKEY_ACCOUNT_DIRECTORY": str(server.account)}
    path = {"PATH": f"{kubectl.parent}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", block], env=os.environ | account | path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (request,) = server.requests.values()
    assert request["spec"]["task"]["parameters"] == {"deployment": "checkout"}
    (rule,) = request["spec"]["access"]["kubernetes"]["scopes"][0]["rules"]
    assert (rule["resourceNames"], rule["verbs"]) == (["checkout"], ["get", "patch"])
    assert "rollout restart" in (tmp_path / "ran").read_text()
    assert '"tokenFile": "token"' in (tmp_path / "config").read_text()
    assert server.outcome() == "Succeeded"
    assert entries() == []
