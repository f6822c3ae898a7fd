"""What can an expression read, and of which type?

The models say it. `CHECKING` knows every field of them, so that a misspelt one is found when the policy is written;
`RUNNING` knows the same names as the maps that `variables` gives. An expression compiles in both, and runs in the
second.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cel_expr_python import cel  # type: ignore[import-untyped]
from google.protobuf import descriptor_pb2, descriptor_pool, struct_pb2, timestamp_pb2  # type: ignore[import-untyped]
from pydantic import Field

from valetkey.kinds.access import Access
from valetkey.kinds.accessrequest import Task
from valetkey.kinds.base import Model, Time
from valetkey.kinds.schema import Json, structural

# A word that CEL reserves: no expression can name a type that has fields here and is a mere map when it runs.
PACKAGE: Final = "package"


class _Identity(Model):
    """The pod that asks, as it was verified."""

    namespace: str
    service_account: str
    pod_name: str
    pod_uid: str = Field(alias="podUID")
    node_name: str
    labels: dict[str, str]


class _Claims(Model):
    """What the agent says of itself; nothing has verified it."""

    task: Task


class _Asker(Model):
    """The agent that asked, as it was verified."""

    namespace: str
    service_account: str


class _Parent(Model):
    """The live request that this one works for; empty where it works for none."""

    namespace: str | None = None
    name: str | None = None
    identity: _Asker | None = None
    task: Task | None = None


class _Namespace(Model):
    """A namespace that the request reaches; without labels where they are not known."""

    labels: dict[str, str] | None = None


class _Approver(Model):
    """Who spoke, as the API server authenticated it then."""

    username: str
    groups: tuple[str, ...]


class _Approval(Model):
    """What a person said on the request; here are only words that count."""

    policy: str
    verdict: str
    approver: _Approver
    at: Time


_FIELD: Final = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final[Mapping[str, Any]] = {
    "string": _FIELD.TYPE_STRING,
    "integer": _FIELD.TYPE_INT64,
    "number": _FIELD.TYPE_DOUBLE,
    "boolean": _FIELD.TYPE_BOOL,
}


_KNOWN: Final = (struct_pb2.DESCRIPTOR, timestamp_pb2.DESCRIPTOR)


class _Messages:
    """Structural schemas as messages of Protocol Buffers, which the compiler takes for its types."""

    def __init__(self) -> None:
        self._file = descriptor_pb2.FileDescriptorProto(
            name=f"{PACKAGE}.proto", package=PACKAGE, syntax="proto3", dependency=[file.name for file in _KNOWN]
        )
        self.fields: dict[str, tuple[str, ...]] = {}
        """The fields of each message, by its path."""

    def add(self, path: str, schema: Json) -> str:
        """Adds an object by its path, such as access.kubernetes, and what lies in it; gives the message's full name."""
        self.fields[path] = tuple(schema["properties"])
        # Side by side rather than nested: in a message no other may have the name of a field.
        message = self._file.message_type.add(name=path.replace(".", "_"))
        for number, (name, field) in enumerate(schema["properties"].items(), 1):
            message.field.add(name=name, number=number, **self._field(f"{path}.{name}", field, message))
        return f"{PACKAGE}.{message.name}"

    def pool(self) -> Any:
        """All that was added, for the compiler."""
        pool = descriptor_pool.DescriptorPool()
        for file in _KNOWN:
            pool.AddSerializedFile(file.serialized_pb)
        pool.AddSerializedFile(self._file.SerializeToString())
        return pool

    def _field(self, path: str, schema: Json, message: Any) -> dict[str, Any]:
        match schema:
            case {"type": "array", "items": items}:
                return self._value(path, items) | {"label": _FIELD.LABEL_REPEATED}
            case {"additionalProperties": values}:
                name = path.rpartition(".")[2]
                entry = message.nested_type.add(name=f"{name[0].upper()}{name[1:]}Entry", options={"map_entry": True})
                entry.field.add(name="key", number=1, type=_FIELD.TYPE_STRING)
                entry.field.add(name="value", number=2, **self._value(path, values))
                return _message(f"{PACKAGE}.{message.name}.{entry.name}") | {"label": _FIELD.LABEL_REPEATED}
        return self._value(path, schema)

    def _value(self, path: str, schema: Json) -> dict[str, Any]:
        match schema:
            case {"properties": _}:
                return _message(self.add(path, schema))
            case {"x-kubernetes-preserve-unknown-fields": True}:
                return _message("google.protobuf.Struct")
            case {"type": "string", "format": "date-time"}:
                return _message("google.protobuf.Timestamp")
            case {"type": str(scalar)} if scalar in _SCALARS:
                return {"type": _SCALARS[scalar]}
        raise TypeError(f"{path}: expressions know no list or map of such values; give them fields")


def _message(name: str) -> dict[str, Any]:
    return {"type": _FIELD.TYPE_MESSAGE, "type_name": f".{name}"}


_messages = _Messages()
_identity, _claims, _access, _parent, _namespace, _approval = (
    cel.Type(_messages.add(path, structural(model)))
    for path, model in (
        ("identity", _Identity),
        ("claims", _Claims),
        ("access", Access),
        ("parent", _Parent),
        ("namespaces", _Namespace),
        ("approvals", _Approval),
    )
)
_MAP: Final = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
_PLAIN: Final = {"cluster": cel.Type.STRING, "now": cel.Type.TIMESTAMP}

FIELDS: Final[Mapping[str, tuple[str, ...]]] = _messages.fields
"""What can be read of each object, by its path; a list or map of objects has the path of one of them."""
CHECKING: Final = cel.NewEnv(
    _messages.pool(),
    variables={
        "identity": _identity,
        "claims": _claims,
        "access": _access,
        "parent": _parent,
        "namespaces": cel.Type.Map(cel.Type.STRING, _namespace),
        "approvals": cel.Type.List(_approval),
        **_PLAIN,
    },
)
_OTHERS: Final = {"identity": _MAP, "claims": _MAP, "access": _MAP, "parent": _MAP, "namespaces": _MAP, **_PLAIN}
RUNNING: Final = cel.NewEnv(variables={**_OTHERS, "approvals": cel.Type.List(_MAP)})
WITHOUT_APPROVALS: Final = cel.NewEnv(variables=_OTHERS)
"""The same for an expression that does not ask what people have said; one that does has no meaning here."""
