"""`python -m valetkey.kinds` writes the CRDs, and what the operator expects of them; `--check` compares."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from valetkey.kinds.base import GROUP
from valetkey.kinds.schema import KINDS, bare, crd, schema

_ROOT = Path(__file__).parents[3]
_FOLDERS = ("crds", "charts/valetkey/files/crds")  # for people, and for the chart, which cannot reach outside itself
_EXPECTED = (
    "operator/valetkey/kinds/schemas.json"  # for the operator: to make it at each start would take a third of a second
)
_HEAD = "# Written by `python -m valetkey.kinds` from operator/valetkey/kinds; change it there.\n"


class _Plain(yaml.SafeDumper):
    """YAML without anchors: what is said twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def main() -> int:
    """Writes the files, or with --check names those that are not current."""
    parser = argparse.ArgumentParser(prog="python -m valetkey.kinds", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not current")
    check = parser.parse_args().check
    stale = [(path, text) for path, text in _files().items() if not path.is_file() or path.read_text() != text]
    for path, text in stale:
        print(path.relative_to(_ROOT), file=sys.stderr if check else sys.stdout)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return 1 if check and stale else 0


def _files() -> dict[Path, str]:
    texts = {
        f"{kind.plural}.{GROUP}.yaml": _HEAD
        + yaml.dump(crd(kind), Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)
        for kind in KINDS
    }
    expected = {f"{kind.plural}.{GROUP}": bare(schema(kind.model)) for kind in KINDS}
    files = {_ROOT / folder / name: text for folder in _FOLDERS for name, text in texts.items()}
    return files | {_ROOT / _EXPECTED: json.dumps(expected, indent=1) + "\n"}


if __name__ == "__main__":
    sys.exit(main())
