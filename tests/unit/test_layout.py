"""How the code is laid out, where no other tool looks."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
OPERATOR = ROOT / "operator"
MODULES = sorted((OPERATOR / "valetkey").rglob("*.py"))
VAGUE = {"util", "utils", "helper", "helpers", "common", "manager", "misc"}


def _name(path: Path) -> str:
    return str(path.relative_to(OPERATOR))


each_module = pytest.mark.parametrize("path", MODULES, ids=_name)


def _without_docstring(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    """Public functions, methods and classes that say nothing about themselves."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if ast.get_docstring(node) is None:
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from _without_docstring(node.body, f"{prefix}{node.name}.")


def test_the_directory_operator_is_no_package_for_it_would_hide_a_module_of_python() -> None:
    assert not (OPERATOR / "__init__.py").exists()
    assert MODULES


@each_module
def test_a_module_asks_one_question_in_300_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300


@each_module
def test_a_module_is_named_for_what_it_does(path: Path) -> None:
    assert not {path.stem, *path.parent.relative_to(OPERATOR).parts} & VAGUE


@each_module
def test_a_module_and_all_that_is_public_in_it_say_what_they_are(path: Path) -> None:
    module = ast.parse(path.read_text())
    assert ast.get_docstring(module)
    assert list(_without_docstring(module.body)) == []


def _contract(name: str) -> dict[str, Any]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return next(contract for contract in contracts if contract["name"].startswith(name))


def _in(folder: str) -> set[str]:
    return {f"valetkey.{folder}.{path.stem}" for path in (OPERATOR / "valetkey" / folder).glob("[!_]*.py")}


def test_nothing_but_the_handlers_and_the_composition_root_may_know_kopf() -> None:
    named = set(_contract("only the handlers")["source_modules"])
    folders = {f"valetkey.{path.name}" for path in (OPERATOR / "valetkey").iterdir() if (path / "__init__.py").exists()}
    modules = {f"valetkey.{path.stem}" for path in (OPERATOR / "valetkey").glob("[!_]*.py")}
    rest = (folders | modules) - {"valetkey.controller"} | (_in("controller") - {"valetkey.controller.handlers"})
    assert rest <= named


def test_no_issuer_is_left_out_of_the_contract_that_they_never_import_each_other() -> None:
    issuers = {name for name in _in("issuers") if "Issuer:" in _text(name) or "Issuer(" in _text(name)}
    assert issuers - {"valetkey.issuers.base"} <= set(_contract("issuers never import each other")["modules"])


def _text(module: str) -> str:
    return (OPERATOR / f"{module.replace('.', '/')}.py").read_text()


def test_what_an_agent_imports_brings_nothing_else_of_ours() -> None:
    code = "import sys, valetkey.agent; print(*(name for name in sys.modules if name.startswith('valetkey')))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in loaded if name != "valetkey" and not name.startswith("valetkey.agent")] == []
    assert "valetkey.agent" in loaded
