"""`python -m tests.examples` writes crds/examples/README.md: who asks for what in the examples, and what is decided."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

from tests.cluster.local.places import ROOT
from valetkey.cli.cases import load_policies
from valetkey.policy.casefile import Case, CaseFile
from valetkey.policy.cases import run
from valetkey.policy.notation import accounts, line

EXAMPLES: Final = ROOT / "crds" / "examples"
TABLE: Final = EXAMPLES / "README.md"
_HEAD: Final = """# Examples

Each folder has policies, a request and cases. `valetkey test crds/examples/NAME` decides the cases; this table is what
comes of all of them, written by `make examples`.

| Example | Agent | Asks for | Case | Decided |
|---|---|---|---|---|
"""


def table() -> str:
    """The table as it is by today's policies and cases."""
    return _HEAD + "".join(row for folder in folders() for row in _rows(folder))


def folders() -> list[Path]:
    """Every example."""
    return sorted(path.parent for path in EXAMPLES.glob("*/policy.yaml"))


def _rows(folder: Path) -> Iterator[str]:
    policies = load_policies(folder)
    file = CaseFile.model_validate(yaml.safe_load((folder / "cases.yaml").read_text()))
    for result in run(file, policies):
        case = result.case
        labels = "".join(f" {key}={value}" for key, value in case.agent.labels.items())
        agent = f"{case.agent.namespace}/{case.agent.service_account}{labels}"
        decided = result.got.partition(":")[0]
        yield f"| {folder.name} | {agent} | `{_asks(case)}` | {case.name} | {decided} |\n"


def _asks(case: Case) -> str:
    delegation = case.request.delegation
    handed_on = (
        ""
        if delegation is None
        else f" → {accounts(delegation)}: "
        + (" | ".join(map(line, delegation.access)) if delegation.access else "the same")
    )
    return line(case.request.access) + handed_on


if __name__ == "__main__":
    TABLE.write_text(table())
    sys.stdout.write(f"{TABLE.relative_to(ROOT)}\n")
