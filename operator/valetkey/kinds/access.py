"""What may be asked for: the union of access kinds, and the Kubernetes member of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from valetkey.kinds.base import Model, Name, ruled

Word = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[!-~]+$")]
Words = Annotated[tuple[Word, ...], Field(min_length=1, max_length=32)]
Namespace = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]


class Rule(Model):
    """Rights on resources or on paths, in the words of an RBAC rule."""

    model_config = ruled(
        (
            "has(self.resources) != has(self.nonResourceURLs)",
            "a rule names resources or nonResourceURLs, one of the two",
        ),
        ("has(self.resources) == has(self.apiGroups)", 'resources need apiGroups (the core group is "")'),
        ("!has(self.resourceNames) || has(self.resources)", "resourceNames belong to resources"),
    )

    api_groups: (
        Annotated[
            tuple[Annotated[str, Field(max_length=253, pattern=r"^[!-~]*$")], ...], Field(min_length=1, max_length=32)
        ]
        | None
    ) = Field(default=None, description='API groups; "" is the core group, "*" any.')
    resources: Words | None = Field(
        default=None, description='Resources, subresources as pods/log; "*" any, "*/scale" that subresource of any.'
    )
    resource_names: Words | None = Field(default=None, description="Only objects of these names; left out, any name.")
    non_resource_urls: Words | None = Field(
        default=None, alias="nonResourceURLs", description="Paths such as /healthz or /metrics/*; cluster scope only."
    )
    verbs: Words = Field(description='Verbs; "*" any.')


class Scope(Model):
    """Rights in one namespace or, without one, in the cluster's scope."""

    model_config = ruled(
        ("has(self.rules) != has(self.clusterRole)", "a scope has rules or a clusterRole, one of the two"),
        (
            "!has(self.__namespace__) || !has(self.rules) || !self.rules.exists(r, has(r.nonResourceURLs))",
            "nonResourceURLs exist in cluster scope only: leave namespace out",
        ),
    )

    namespace: Namespace | None = Field(
        default=None,
        description="The namespace; left out, cluster scope, which the policy must allow in so many words.",
    )
    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=16)] | None = Field(
        default=None, description="Exactly these rights. One of rules and clusterRole."
    )
    cluster_role: Name | None = Field(
        default=None, description="The rights of this approved ClusterRole. One of rules and clusterRole."
    )


class KubernetesAccess(Model):
    """Rights at this cluster's own API server."""

    scopes: Annotated[tuple[Scope, ...], Field(min_length=1, max_length=8)] = Field(
        description="Where, and which rights there."
    )


class Access(Model):
    """What is asked for: exactly one kind of access."""

    model_config = ruled(
        ("[has(self.kubernetes)].filter(x, x).size() == 1", "access has exactly one member: kubernetes")
    )

    kubernetes: KubernetesAccess | None = Field(default=None, description="Rights at this cluster's own API server.")
