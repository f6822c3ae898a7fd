"""`python -m tests`: a cluster, the images, then every test; VALETKEY_TESTS=fast runs what needs no cluster."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.cluster.local import images
from tests.cluster.local.cluster import up
from tests.cluster.local.places import ROOT, LocalClusterError


def main() -> int:
    """Runs the tests and gives pytest's exit code; more arguments go to pytest."""
    pytest = [sys.executable, "-m", "pytest", *sys.argv[1:]]
    match os.environ.get("VALETKEY_TESTS", "all"):
        case "fast":
            return subprocess.run([*pytest, "tests/unit", "tests/properties"], cwd=ROOT, check=False).returncode
        case "all":
            pass
        case other:
            say(f"VALETKEY_TESTS={other}: it is `fast`, or left out")
            return 2
    try:
        cluster = up(say)
        if cluster.node is None:
            say("tests with pods need root, for containerd and a kubelet; VALETKEY_TESTS=fast needs neither")
            return 1
        images.load(cluster, say)
    except LocalClusterError as error:
        say(f"no cluster, so the tests fail: {error}")
        return 1
    return subprocess.run([*pytest, "tests"], cwd=ROOT, check=False).returncode


def say(text: str) -> None:
    """Shows progress."""
    sys.stderr.write(f"tests: {text}\n")
    sys.stderr.flush()


sys.exit(main())
