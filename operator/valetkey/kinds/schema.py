"""The kinds as CustomResourceDefinitions: structural schemas made from the models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from valetkey.kinds.accessapproval import AccessApproval
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.agentpolicy import AgentPolicy
from valetkey.kinds.base import GROUP, VERSION
from valetkey.kinds.leader import Leader
from valetkey.kinds.ledger import Ledger
from valetkey.kinds.taskgrant import TaskGrant

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a kind is besides its fields."""

    model: type[BaseModel]
    plural: str
    namespaced: bool
    columns: tuple[tuple[str, str], ...]
    short: str = ""
    """Left out where only the operator has to do with it."""
    selectable: tuple[str, ...] = ()


def _condition(kind: str, member: str) -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{member}'


KINDS: Final = (
    Kind(
        model=AccessRequest,
        plural="accessrequests",
        short="ar",
        namespaced=True,
        columns=(
            ("Agent", ".status.agent"),
            ("Purpose", ".spec.task.purpose"),
            ("Access", ".status.access"),
            ("Ready", _condition("Ready", "status")),
            ("Reason", _condition("Finished", "reason")),
            ("Expires", ".status.expiresAt"),
        ),
        selectable=(".spec.subject.podUID", ".spec.task.id"),
    ),
    Kind(
        model=TaskGrant,
        plural="taskgrants",
        short="tg",
        namespaced=True,
        columns=(
            ("Agent", ".spec.order.subject.podName"),
            ("Purpose", ".spec.order.task.purpose"),
            ("Access", ".spec.order.line"),
            ("Issued", _condition("Issued", "status")),
            ("Ending", ".status.end.reason"),
            ("Expires", ".spec.order.notAfter"),
        ),
    ),
    Kind(
        model=AgentPolicy,
        plural="agentpolicies",
        short="ap",
        namespaced=False,
        columns=(
            ("Effect", ".spec.effect"),
            ("Mode", ".spec.mode"),
            ("Until", ".spec.until"),
            ("Ready", _condition("Ready", "status")),
            ("Reason", _condition("Ready", "reason")),
        ),
    ),
    Kind(
        model=AccessApproval,
        plural="accessapprovals",
        short="aa",
        namespaced=True,
        columns=(
            ("Request", ".spec.request.name"),
            ("Policy", ".spec.policy"),
            ("Verdict", ".spec.verdict"),
            ("By", ".spec.approver.username"),
            ("Reason", ".spec.reason"),
        ),
    ),
    Kind(
        model=Leader,
        plural="leaders",
        namespaced=True,
        columns=(
            ("Holder", ".spec.holderIdentity"),
            ("Since", ".spec.acquireTime"),
            ("Renewed", ".spec.renewTime"),
        ),
    ),
    Kind(model=Ledger, plural="ledgers", namespaced=True, columns=(("Of", ".spec.namespace"),)),
)


def crd(kind: Kind) -> Json:
    """The CustomResourceDefinition of a kind."""
    name = kind.model.__name__
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{GROUP}",
            # Deleting the definition would delete every object, and with it the record of what is granted.
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": GROUP,
            "names": {
                "kind": name,
                "listKind": f"{name}List",
                "plural": kind.plural,
                "singular": name.lower(),
                **({"shortNames": [kind.short], "categories": ["valetkey"]} if kind.short else {}),
            },
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema(kind.model)},
                    **({"subresources": {"status": {}}} if "status" in kind.model.model_fields else {}),
                    **(
                        {"selectableFields": [{"jsonPath": path} for path in kind.selectable]}
                        if kind.selectable
                        else {}
                    ),
                    "additionalPrinterColumns": [
                        *({"name": column, "type": "string", "jsonPath": path} for column, path in kind.columns),
                        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                    ],
                }
            ],
        },
    }


def structural(model: type[BaseModel]) -> Json:
    """A model as a structural schema: no references, no null, what is optional is absent."""
    root = model.model_json_schema(by_alias=True)
    return _structural(root, root.get("$defs", {}))


def schema(model: type[BaseModel]) -> Json:
    """An object of a kind as a structural schema: its spec, its status, and what every object has."""
    whole = structural(model)
    fields = whole["properties"]
    return whole | {
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"{model.__name__}."},
            "metadata": {"type": "object"},
            "spec": fields["spec"],
            **({"status": _without_default(fields["status"])} if "status" in fields else {}),
        },
    }


def bare(node: Any) -> Any:
    """A schema without its texts, which say nothing of what it holds."""
    if isinstance(node, dict):
        texts = ("description", "message")
        return {key: bare(value) for key, value in node.items() if not (key in texts and isinstance(value, str))}
    return [bare(entry) for entry in node] if isinstance(node, list) else node


def _without_default(field: Json) -> Json:
    return {key: value for key, value in field.items() if key != "default"}


def _structural(node: Json, definitions: Json) -> Json:
    node = _resolved(node, definitions)
    out: Json = {}
    for key, value in node.items():
        match key:
            case "title" | "$defs":
                pass
            case "const":
                out["enum"] = [value]
            case "default":
                if (default := _without_null(value)) not in (None, {}, [], "", False):
                    out["default"] = default
            case "properties":
                out["properties"] = {name: _structural(child, definitions) for name, child in value.items()}
            case "items":
                out["items"] = _structural(value, definitions)
            case "additionalProperties" if value is True:
                out["x-kubernetes-preserve-unknown-fields"] = True
            case "additionalProperties" if value:
                out["additionalProperties"] = _structural(value, definitions)
            case "additionalProperties":
                pass  # Structural schemas prune what they do not know.
            case _:
                out[key] = value
    if out.get("type") == "integer":
        out["format"] = "int64"
    return {key: out[key] for key in sorted(out, key=_place)}


_ORDER: Final = ("description", "type", "format", "enum", "default", "required", "properties", "items")


def _place(key: str) -> tuple[int, str]:
    return (_ORDER.index(key) if key in _ORDER else len(_ORDER), key)


def _resolved(node: Json, definitions: Json) -> Json:
    """The node with its reference or its one alternative to null in place; what stands beside it wins."""
    if "$ref" in node:
        node = dict(node)
        target = definitions[node.pop("$ref").removeprefix("#/$defs/")]
    elif "anyOf" in node:
        node = dict(node)
        (target,) = (choice for choice in node.pop("anyOf") if choice != {"type": "null"})
    else:
        return node
    target = _resolved(target, definitions)
    rules = [rule for part in (target, node) for rule in part.get("x-kubernetes-validations", ())]
    return {**target, **node, **({"x-kubernetes-validations": rules} if rules else {})}


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_null(child) for name, child in value.items() if child is not None}
    return value
