"""Makes the two images and gives them to the cluster: by docker where it works, else from a Debian root."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.cluster.local import archive, kind, node
from tests.cluster.local.binaries import Say
from tests.cluster.local.cluster import Cluster
from tests.cluster.local.places import BIN, CACHE, ROOT, STATE, LocalClusterError

_IMAGES: Final = {"valetkey": "operator", "valetkey-demo": "base"}
"""Each image with the locked requirements that it holds."""
_MADE: Final = STATE / "images"
_ENVIRONMENT: Final = ["PATH=/usr/local/bin:/usr/bin:/bin", "PYTHONPATH=/opt/valetkey", "PYTHONUNBUFFERED=1"]
_PACKAGES: Final = "python3,ca-certificates,curl"


def load(cluster: Cluster, say: Say) -> None:
    """Makes what has changed and gives it to the cluster; a given cluster gets nothing and needs them already."""
    if cluster.source == "given":
        say("a given cluster: push valetkey:dev and valetkey-demo:dev to where it pulls from (operator/Dockerfile)")
        return
    wheel = _wheel()
    for name in _IMAGES:
        digest = _content(name)
        marker = _MADE / f"{name}.{cluster.source}"
        known = marker.read_text() if marker.exists() else ""
        if known == digest and (cluster.source == "kind" or f"docker.io/library/{name}:dev" in node.images()):
            continue
        say(f"making image {name}:dev")
        if cluster.source == "kind":
            kind.load_image(name, wheel)
        else:
            node.import_image(_archive(name, wheel, say))
        _MADE.mkdir(parents=True, exist_ok=True)
        marker.write_text(digest)


def load_small(say: Say) -> None:
    """The pause image that every pod needs, from a static busybox."""
    if "docker.io/library/valetkey-pause:1" in node.images():
        return
    say("making the pause image")
    root = _MADE / "pause"
    shutil.rmtree(root, ignore_errors=True)
    (root / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin" / "busybox")
    out = _MADE / "pause.tar"
    packed = _MADE / "pause.layer.tar"
    archive.layer(root, packed)
    archive.write(out, "docker.io/library/valetkey-pause:1", [packed], {"Cmd": ["/bin/busybox", "sleep", "2147483647"]})
    node.import_image(out)


def _archive(name: str, wheel: Path, say: Say) -> Path:
    base = _base(say)
    root = _MADE / name
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    environment = os.environ | {"PYTHON": sys.executable, "KUBECTL": str(BIN / "kubectl")}
    _run([str(ROOT / "operator" / "image.sh"), str(root), name, str(wheel)], environment)
    packed, out = _MADE / f"{name}.layer.tar", _MADE / f"{name}.tar"
    archive.layer(root, packed)
    config: dict[str, Any] = {"Env": _ENVIRONMENT, "User": "65532:65532", "WorkingDir": "/"}
    config["Entrypoint" if name == "valetkey" else "Cmd"] = (
        ["python3", "-m", "valetkey"] if name == "valetkey" else ["sh"]
    )
    archive.write(out, f"docker.io/library/{name}:dev", [base, packed], config)
    return out


def _base(say: Say) -> Path:
    """A Debian root with Python, made once."""
    out = CACHE / "image" / "bookworm.tar"
    if out.exists():
        return out
    say("making a Debian root with debootstrap (about a minute)")
    root = CACHE / "image" / "bookworm"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    _run(["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(root), _mirror()], os.environ)
    for waste in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(root / waste, ignore_errors=True)
    draft = out.with_suffix(".draft")
    archive.layer(root, draft)
    draft.rename(out)
    shutil.rmtree(root, ignore_errors=True)
    return out


def _mirror() -> str:
    """Where this machine takes its Debian packages from."""
    sources = Path("/etc/apt")
    texts = [path.read_text() for path in sorted([*sources.glob("sources.list"), *sources.glob("sources.list.d/*")])]
    for text in texts:
        for stanza in text.split("\n\n"):
            found = re.search(r"^URIs:\s*(\S+/debian)/?\s*$", stanza, re.M) or re.search(
                r"^deb\s+(?:\[[^]]*\]\s+)?(\S+/debian)/?\s", stanza, re.M
            )
            if found:
                return found[1]
    raise LocalClusterError("no Debian mirror in /etc/apt: images are made from a Debian root")


def _wheel() -> Path:
    out = ROOT / "build" / "wheel"
    shutil.rmtree(out, ignore_errors=True)
    _run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(out), str(ROOT)],
        os.environ,
    )
    (wheel,) = out.glob("*.whl")
    return wheel


def _content(name: str) -> str:
    digest = hashlib.sha256()
    for path in _sources(name):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _sources(name: str) -> Iterator[Path]:
    yield ROOT / "operator" / "image.sh"
    yield ROOT / "pyproject.toml"
    yield ROOT / "requirements" / f"{_IMAGES[name]}.txt"
    yield from sorted((ROOT / "operator" / "valetkey").rglob("*.py"))


def _run(command: list[str], environment: Any) -> None:
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    if done.returncode != 0:
        tail = (done.stdout + done.stderr).decode(errors="replace")[-2000:]
        raise LocalClusterError(f"{Path(command[0]).name} failed:\n{tail}")
