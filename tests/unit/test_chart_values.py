"""The chart's values, their comments and their schema say the same."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from tests.cluster.local.places import ROOT

CHART = ROOT / "charts" / "valetkey"
TEXT = (CHART / "values.yaml").read_text()
VALUES: dict[str, Any] = yaml.safe_load(TEXT)
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
OF_HELM = {"global"}


def of_values(values: dict[str, Any], before: str = "") -> Iterator[str]:
    """Every value by its path."""
    for name, value in values.items():
        yield f"{before}{name}"
        if isinstance(value, dict):
            yield from of_values(value, f"{before}{name}.")


def of_schema(schema: dict[str, Any], before: str = "") -> Iterator[str]:
    """Every property by its path; what is free inside is not looked at."""
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    for name, inner in schema.get("properties", {}).items():
        yield f"{before}{name}"
        yield from of_schema(inner, f"{before}{name}.")


def test_every_value_has_its_place_in_the_schema_and_every_property_its_default() -> None:
    free = {path for path in of_values(VALUES) if "resources." in path}
    assert set(of_values(VALUES)) - free == set(of_schema(SCHEMA)) - OF_HELM


def test_every_section_that_switches_something_says_what() -> None:
    for section in ("metrics", "networkPolicy", "priorityAndFairness"):
        assert re.search(rf"^# .*\n{section}:$", TEXT, re.M), section
