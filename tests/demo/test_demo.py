"""The demo, as `make demo` and `make demo-down` run it."""

from __future__ import annotations

import subprocess
import sys

from tests.cluster.local.cluster import Cluster
from tests.cluster.local.places import ROOT


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "demo", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def kubectl(cluster: Cluster, *arguments: str) -> str:
    done = subprocess.run(["kubectl", *arguments], env=cluster.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_demo_plays_and_leaves_nothing_behind(cluster: Cluster) -> None:
    assert cluster.node is not None, "pods need a node: run the tests as root"
    demo("down")  # what other tests have left would decide here too
    played = demo()
    assert played.returncode == 0, played.stdout + played.stderr
    for shown in ("refused", "AccessBeyondPolicy", "TaskReleased", "CredentialRevoked", "pod template"):
        assert shown in played.stdout
    assert "eyJhbGciOi" not in played.stdout + played.stderr, "a token was shown"
    removed = demo("down")
    assert removed.returncode == 0, removed.stdout + removed.stderr
    assert "valetkey.dev" not in kubectl(cluster, "get", "crds", "-o", "name")
    namespaces = kubectl(cluster, "get", "namespaces", "-o", "name")
    assert "valetkey" not in namespaces
    assert not {"namespace/shop", "namespace/shop-agents"} & set(namespaces.split())
    assert "valetkey" not in kubectl(cluster, "get", "validatingadmissionpolicies,clusterroles", "-o", "name")
