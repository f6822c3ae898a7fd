"""Identity: the pod behind a request, as it was verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A pod that was read live and found to be the requester; made by `identity` alone."""

    namespace: str
    pod_name: str
    pod_uid: str
    node_name: str
    service_account: str
    labels: Mapping[str, str]
