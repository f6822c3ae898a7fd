"""What every test may ask for."""

from __future__ import annotations

import sys

import pytest

from tests.cluster.local.cluster import Cluster, up


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Cluster:
    """A real cluster: the one that KUBECONFIG names, else kind, else one built from source."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def say(text: str) -> None:
        with capture.global_and_fixture_disabled():
            print(text, file=sys.stderr)

    return up(say)
