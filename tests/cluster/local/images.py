"""Makes the two images and gives them to the cluster: by docker on kind, else from a Debian root."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from tests.cluster.local import archive, debian, kind, node
from tests.cluster.local.cluster import Cluster, load_image
from tests.cluster.local.lock import alone
from tests.cluster.local.places import BIN, CACHE, ROOT, STATE, VERSION, LocalClusterError, Say

_LOCKS: Final = {"valetkey": "operator", "valetkey-demo": "base"}
"""Each image with the locked requirements that it holds."""
_STARTS: Final[dict[str, dict[str, Any]]] = {
    "valetkey": {"Entrypoint": ["python3", "-m", "valetkey"]},
    "valetkey-demo": {"Cmd": ["sh"]},
}
_RUNS: Final[dict[str, Any]] = {
    "User": "65532:65532",
    "WorkingDir": "/",
    "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "PYTHONPATH=/opt/valetkey", "PYTHONUNBUFFERED=1"],
}
_SCRIPT: Final = ROOT / "operator" / "image.sh"
_MADE: Final = STATE / "images"


def load(cluster: Cluster, say: Say) -> None:
    """Makes what has changed and gives it to the cluster; a given cluster gets nothing and needs them already."""
    if cluster.source == "given":
        say("a given cluster: load valetkey:dev and valetkey-demo:dev on its nodes (operator/Dockerfile)")
        return
    if cluster.node is None:
        say("no node, so no images")
        return
    with alone(say):
        there = kind.images() if cluster.source == "kind" else node.images()
        stale = [
            name
            for name in _LOCKS
            if reference(name) not in there or _read(_marker(cluster, name)) != _digest(_sources(name))
        ]
        wheel = _wheel() if stale else None
        for name in stale:
            assert wheel is not None
            say(f"making image {name}:dev")
            made = _digest(_sources(name))
            if cluster.source == "kind":
                kind.build_image(name, wheel)
            else:
                load_image(cluster, _archive(name, wheel, say))
            _MADE.mkdir(parents=True, exist_ok=True)
            _marker(cluster, name).write_text(made)


def reference(name: str) -> str:
    """The full name by which a node knows NAME:dev."""
    return f"docker.io/library/{name}:dev"


def _archive(name: str, wheel: Path, say: Say) -> Path:
    root, out = _MADE / name, _MADE / f"{name}.tar"
    layers = [debian.base(say), _locked(name, say), _MADE / f"{name}.layer.tar"]
    _script(root, layers[-1], name, str(wheel))
    archive.write(out, [reference(name)], layers, _RUNS | _STARTS[name])
    return out


def _locked(name: str, say: Say) -> Path:
    """The layer of everything that changes rarely, kept until it does."""
    kept = CACHE / "image"
    digest = _digest([_SCRIPT, _lock(name)], VERSION)
    out = kept / f"{name}-{digest[:16]}.tar"
    if not out.exists():
        say(f"installing the locked requirements of {name}:dev")
        for old in kept.glob(f"{name}-????????????????.tar"):
            old.unlink()
        draft = kept / f"{name}.draft"
        _script(_MADE / f"{name}.locked", draft, name)
        draft.rename(out)
    return out


def _script(root: Path, out: Path, *arguments: str) -> None:
    """Runs operator/image.sh on an empty root, and packs that."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    environment = os.environ | {"PYTHON": str(_python()), "KUBECTL": str(BIN / "kubectl")}
    _run([str(_SCRIPT), str(root), *arguments], environment)
    archive.layer(root, out)
    shutil.rmtree(root)


def _wheel() -> Path:
    out = ROOT / "build" / "wheel"
    shutil.rmtree(out, ignore_errors=True)
    arguments = ["-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(out), str(ROOT)]
    _run([str(_python()), *arguments], dict(os.environ))
    (wheel,) = out.glob("*.whl")
    return wheel


def _python() -> Path:
    """A Python with pip and the build backend: the project's own where it is installed."""
    own = ROOT / ".venv" / "bin" / "python"
    return own if own.exists() else Path(sys.executable)


def _lock(name: str) -> Path:
    return ROOT / "requirements" / f"{_LOCKS[name]}.txt"


def _sources(name: str) -> list[Path]:
    package = (ROOT / "operator" / "valetkey").rglob("*")
    ours = sorted(path for path in package if path.is_file() and "__pycache__" not in path.parts)
    return [_SCRIPT, ROOT / "operator" / "Dockerfile", ROOT / "pyproject.toml", _lock(name), *ours]


def _digest(paths: Iterable[Path], *words: str) -> str:
    digest = hashlib.sha256("\0".join(words).encode())
    for path in paths:
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _marker(cluster: Cluster, name: str) -> Path:
    return _MADE / f"{name}.{cluster.source}"


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _run(command: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    if done.returncode != 0:
        tail = (done.stdout + done.stderr).decode(errors="replace")[-2000:]
        raise LocalClusterError(f"{' '.join([Path(command[0]).name, *command[1:4]])} failed:\n{tail}")
