"""What every test may ask for."""

from __future__ import annotations

import sys

import pytest

from tests.cluster.local.cluster import Cluster, up


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """A real cluster; without one, the tests that ask for it fail."""
    return up(lambda text: print(f"cluster: {text}", file=sys.stderr))
