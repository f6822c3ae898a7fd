"""`valetkey test`: policies and what they are to decide, tried without a cluster."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar
from xml.etree import ElementTree

import typer
import yaml
from pydantic import BaseModel, ValidationError

from valetkey.cli.kubectl import Output, stop
from valetkey.cli.tables import show
from valetkey.kinds.agentpolicy import AgentPolicy
from valetkey.policy.casefile import CaseFile
from valetkey.policy.cases import Result, run
from valetkey.policy.compile import Policies, Uncompiled, compile_policy

M = TypeVar("M", bound=BaseModel)
_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Told:
    """What became of one case, and where it is written."""

    file: Path
    result: Result
    seconds: float


def cases(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Holds AgentPolicies and files of cases, in YAML.")],
    junit: Annotated[Path | None, typer.Option(help="Also write the results here, as JUnit XML.")] = None,
    output: Annotated[Output, typer.Option("-o", "--output", help="table or json.")] = Output.TABLE,
) -> None:
    """Decide every case beneath DIR by all the policies beneath it, and compare with what each expects.

    A case is a request, who asks, what is known, and what is expected; see crds/examples. Exit code 0: all as expected;
    1: some not; 2: a file cannot be read, or a policy cannot be used.
    """
    policies = load_policies(directory)
    told = [one for path, file in _load_cases(directory) for one in _decide(path, file, policies)]
    if junit is not None:
        _write_junit(junit, told)
    wrong = [one for one in told if one.result.wrong]
    if output is Output.JSON:
        typer.echo(json.dumps([_as_json(one) for one in told]))
    else:
        rows = [(one.file, one.result.case.name, one.result.wrong, one.result.got) for one in wrong]
        if rows:
            show(("FILE", "CASE", "WRONG", "DECIDED"), rows)
        typer.echo(f"{len(told) - len(wrong)} passed, {len(wrong)} failed")
    if wrong:
        raise typer.Exit(1)


def load_policies(path: Path) -> Policies:
    """The AgentPolicies of a file, or of all beneath a directory; ends the command where one cannot be used."""
    policies, names = [], dict[str, Path]()
    for file in _files(path):
        for body in _documents(file):
            if body.get("kind") != "AgentPolicy":
                continue
            policy = _read(AgentPolicy, _as_stored(body), file)
            name = policy.metadata.name
            if name in names:
                raise stop(f"{file}: policy {name} is in {names[name]} too", 2)
            names[name] = file
            compiled = compile_policy(policy)
            if isinstance(compiled, Uncompiled):
                raise stop(f"{file}: policy {name}: {compiled.message}", 2)
            policies.append(compiled)
    return Policies.of(policies)


def _load_cases(directory: Path) -> list[tuple[Path, CaseFile]]:
    bodies = ((file, body) for file in _files(directory) for body in _documents(file))
    files = [(file, _read(CaseFile, body, file)) for file, body in bodies if body.get("kind") == "PolicyTest"]
    if not files:
        raise stop(f"{directory} has no cases: a file of them begins with `kind: PolicyTest`", 2)
    return files


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise stop(f"{path}: no such file or directory", 2)
    return sorted((*path.rglob("*.yaml"), *path.rglob("*.yml")))


def _read(kind: type[M], body: dict[str, Any], file: Path) -> M:
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        # A misspelt field is often a missing one as well, and the first is what there is to mend.
        first = min(errors, key=lambda one: one["type"] != "extra_forbidden")
        where = ".".join(str(part) for part in first["loc"])
        raise stop(f"{file}: {where}: {first['msg']}", 2) from None


def _documents(path: Path) -> Iterator[dict[str, Any]]:
    try:
        for body in yaml.load_all(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            if isinstance(body, dict):
                yield body
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise stop(f"{path}: {error}", 2) from None


def _as_stored(body: dict[str, Any]) -> dict[str, Any]:
    """A policy with what the API server would add to it."""
    added = {"uid": "uid", "generation": 1, "creationTimestamp": _EPOCH.isoformat()}
    return body | {"metadata": added | dict(body.get("metadata") or {})}


def _decide(path: Path, file: CaseFile, policies: Policies) -> Iterator[_Told]:
    began = time.perf_counter()
    for result in run(file, policies):
        ended = time.perf_counter()
        yield _Told(path, result, ended - began)
        began = ended


def _as_json(one: _Told) -> dict[str, Any]:
    result = one.result
    return {"file": str(one.file), "case": result.case.name, "decided": result.got, "wrong": result.wrong or None}


def _write_junit(path: Path, told: list[_Told]) -> None:
    failures = sum(bool(one.result.wrong) for one in told)
    suite = ElementTree.Element("testsuite", name="valetkey", tests=str(len(told)), failures=str(failures))
    for one in told:
        attributes = {"classname": str(one.file), "name": one.result.case.name, "time": f"{one.seconds:.6f}"}
        case = ElementTree.SubElement(suite, "testcase", attributes)
        if one.result.wrong:
            ElementTree.SubElement(case, "failure", message=one.result.wrong).text = one.result.got
    try:
        ElementTree.ElementTree(suite).write(path, encoding="unicode", xml_declaration=True)
    except OSError as error:
        raise stop(f"{path}: {error.strerror}", 2) from None
