"""Whom a policy is about: agents by namespace, ServiceAccount and labels."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from valetkey.kinds.base import Model, Name, ruled

NamespaceName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[!-~]+$")]
_Values = Annotated[tuple[Annotated[str, Field(max_length=63)], ...], Field(max_length=32)]


class SelectorRequirement(Model):
    """One requirement on a label."""

    model_config = ruled(
        (
            "(self.operator in ['In', 'NotIn']) == (self.?values.orValue([]).size() > 0)",
            "In and NotIn need values, Exists and DoesNotExist have none",
        )
    )

    key: str = Field(min_length=1, max_length=317, description="The label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(description="How it is compared.")
    values: _Values = Field(default=(), description="The values for In and NotIn.")


class Selector(Model):
    """A label selector, as metav1.LabelSelector has it; empty selects everything."""

    match_labels: dict[str, Annotated[str, Field(max_length=63)]] = Field(
        default_factory=dict, max_length=32, description="Labels that must be equal."
    )
    match_expressions: Annotated[tuple[SelectorRequirement, ...], Field(max_length=16)] = Field(
        default=(), description="Requirements that must hold."
    )


class SubjectSelector(Model):
    """Whom the policy is about."""

    model_config = ruled(
        (
            "has(self.any) || has(self.__namespace__) || has(self.namespaceSelector)",
            "a subject names a namespace or a namespaceSelector; everybody is {any: true}",
        ),
        (
            "!has(self.any) || ![has(self.__namespace__), has(self.namespaceSelector), has(self.serviceAccount),"
            " has(self.podSelector)].exists(x, x)",
            "any stands alone",
        ),
        (
            "!has(self.__namespace__) || !has(self.namespaceSelector)",
            "a subject has a namespace or a namespaceSelector, one of the two",
        ),
    )

    name: str = Field(min_length=1, max_length=63, description="A name for this entry.")
    any: Literal[True] | None = Field(default=None, description="Every agent; written out, never by omission.")
    namespace: NamespaceName | None = Field(default=None, description="Agents of this namespace.")
    namespace_selector: Selector | None = Field(default=None, description="Agents of namespaces with these labels.")
    service_account: Name | None = Field(default=None, description="Agents that run as this ServiceAccount.")
    pod_selector: Selector | None = Field(default=None, description="Agents whose pod carries these labels.")
