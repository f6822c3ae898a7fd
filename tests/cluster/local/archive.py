"""Writes container images as docker-archive tars: a config, layers, a manifest."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


def layer(root: Path, out: Path) -> None:
    """Packs a folder as one layer, everything owned by root, and with no time in it so that equal folders are equal."""
    with tarfile.open(out, "w") as tar:
        for path in sorted(root.rglob("*")):
            tar.add(path, arcname=str(path.relative_to(root)), recursive=False, filter=_plain)


def write(out: Path, references: Sequence[str], layers: Sequence[Path], config: Mapping[str, Any]) -> None:
    """Writes one image under those full names, for this machine's architecture."""
    digests = [_digest(path) for path in layers]
    body = json.dumps(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": dict(config),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        }
    ).encode()
    names = [f"{digest}/layer.tar" for digest in digests]
    manifest = json.dumps([{"Config": "config.json", "RepoTags": list(references), "Layers": names}]).encode()
    with tarfile.open(out, "w") as tar:
        for path, content in (("config.json", body), ("manifest.json", manifest)):
            info = tarfile.TarInfo(path)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for arcname, packed in dict(zip(names, layers, strict=True)).items():
            tar.add(packed, arcname=arcname)


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if not (info.isfile() or info.isdir() or info.issym() or info.islnk()):
        return None
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mtime = 0
    return info


def _digest(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
