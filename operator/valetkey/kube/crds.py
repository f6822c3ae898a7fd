"""CRDs: whether the API server's have every field and rule that this operator counts on."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import orjson

from valetkey.kinds.base import VERSION
from valetkey.kube.api import Json


def load() -> Mapping[str, Json]:
    """The schemas of this version's kinds by the names of their CRDs, as `python -m valetkey.kinds` wrote them."""
    expected: dict[str, Json] = orjson.loads(files("valetkey.kinds").joinpath("schemas.json").read_bytes())
    return expected


def lacks(expected: Json, crd: Json) -> str | None:
    """The first thing of a schema that a CRD has not; None where it has all of it, and perhaps more.

    The API server drops fields that its CRD does not know, without a word (structural schemas, KEP 2337).
    """
    for version in crd["spec"]["versions"]:
        if version["name"] == VERSION and version["served"]:
            return _lacks(expected, version["schema"]["openAPIV3Schema"], "")
    return f"version {VERSION}"


def _lacks(expected: Any, found: Any, path: str) -> str | None:
    if isinstance(expected, dict) and isinstance(found, dict):
        for key, value in expected.items():
            where = path if key == "properties" else f"{path}.{key}"
            lacking = _lacks(value, found[key], where) if key in found else where
            if lacking is not None:
                return lacking or key
        return None
    if isinstance(expected, list) and isinstance(found, list):
        missing = [entry for entry in expected if all(_lacks(entry, other, "-") is not None for other in found)]
        return f"{path}: {missing[0]}" if missing else None
    return None if expected == found else path
