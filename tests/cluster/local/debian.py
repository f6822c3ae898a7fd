"""The Debian root with Python that both images stand on, made once."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.cluster.local import archive
from tests.cluster.local.places import CACHE, LocalClusterError, Say

_SUITE: Final = "bookworm"
_PACKAGES: Final = "python3,ca-certificates,curl"
_WASTE: Final = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale")
_STANZA: Final = re.compile(r"^URIs:\s*(\S+/debian)/?\s*$", re.M)
_LINE: Final = re.compile(r"^deb\s+(?:\[[^]]*\]\s+)?(\S+/debian)/?\s", re.M)


def base(say: Say) -> Path:
    """The root as a layer; debootstrap makes it the first time, in about a minute."""
    out = CACHE / "image" / f"{_SUITE}.tar"
    if out.exists():
        return out
    say("making a Debian root with debootstrap (about a minute)")
    root = CACHE / "image" / _SUITE
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", _SUITE, str(root), mirror()]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        raise LocalClusterError(f"debootstrap failed:\n{done.stdout.decode(errors='replace')[-2000:]}")
    for waste in _WASTE:
        shutil.rmtree(root / waste, ignore_errors=True)
    draft = out.with_suffix(".draft")
    archive.layer(root, draft)
    draft.rename(out)
    shutil.rmtree(root, ignore_errors=True)
    return out


def mirror(sources: Path = Path("/etc/apt")) -> str:
    """Where this machine takes its Debian packages from; no mirror is ever written down here."""
    names = ("sources.list", "sources.list.d/*.sources", "sources.list.d/*.list")
    for path in (path for name in names for path in sorted(sources.glob(name))):
        text = path.read_text()
        found = _STANZA.search(text) or _LINE.search(text)
        if found:
            return found[1]
    raise LocalClusterError("no Debian mirror in /etc/apt: images are made from a Debian root")
