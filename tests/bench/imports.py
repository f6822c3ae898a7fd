"""How long an agent waits for imports: of `valetkey` itself, and of a first access beside what that stands on."""

from __future__ import annotations

import subprocess
import sys

from tests.bench.table import Row, p50
from tests.cluster.local.places import ROOT

_TIMES = 41
_FIRST = "valetkey.access('p', 'o', 'shop: get pods')"
_STATEMENTS = {
    "valetkey": "import valetkey",
    "access": f"import valetkey; {_FIRST}",
    "bare": "import aiohttp, cryptography",
}


def measure() -> list[Row]:
    """Milliseconds in fresh processes, each kind in turn; what a first access needs is loaded when it is called."""
    times: dict[str, list[float]] = {name: [] for name in _STATEMENTS}
    for _ in range(_TIMES):
        for name, statement in _STATEMENTS.items():
            times[name].append(_once(statement))
    alone, access, bare = (p50(times[name]) for name in ("valetkey", "access", "bare"))
    return [
        Row(
            figure=f"import valetkey, p50 of {_TIMES}",
            valetkey=f"{alone:.1f} ms",
            goal="≤ 20 ms",
            met=alone <= 20,
            samples={"valetkey": times["valetkey"]},
        ),
        Row(
            figure=f"a first access() beside import aiohttp, cryptography, p50 of {_TIMES}",
            valetkey=f"{access:.0f} ms",
            bare=f"{bare:.0f} ms",
            ratio=access / bare,
            goal="≤ 1.15 ×",
            met=access <= 1.15 * bare,
            samples={"valetkey": times["access"], "bare": times["bare"]},
        ),
    ]


def _once(statement: str) -> float:
    program = f"import time; began = time.perf_counter(); {statement}; print((time.perf_counter() - began) * 1000)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout)
