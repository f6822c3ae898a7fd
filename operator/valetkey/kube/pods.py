"""Pods, as far as valetkey looks at them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from valetkey.kube.api import Json

DEFAULT_VOLUME: Final = "valetkey"
FINAL: Final = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One pod, as read."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    labels: Mapping[str, str]
    service_account: str
    node_name: str
    phase: str
    finished: bool
    """Whether its containers have all ended for good, or the kubelet says that they are about to."""
    terminating: bool
    restarts: int
    """How often its containers were started again, or are about to be."""
    died_at: datetime | None
    """When the last of them died that was or is to be started again: by its node's clock, as read."""
    secrets: frozenset[str]
    """Secrets that its volumes name."""
    default_secret: str | None
    """The Secret that its volume `valetkey` names."""


def parse(body: Json) -> Pod:
    """Reads a pod from the API server's JSON."""
    metadata, spec = body["metadata"], body.get("spec", {})
    volumes = [(volume["name"], name) for volume in spec.get("volumes", []) for name in _secrets_of(volume)]
    return Pod(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata.get("resourceVersion", ""),
        labels=dict(metadata.get("labels") or {}),
        service_account=spec.get("serviceAccountName", "default"),
        node_name=spec.get("nodeName", ""),
        phase=body.get("status", {}).get("phase", ""),
        finished=_finished(body.get("status", {})),
        terminating="deletionTimestamp" in metadata,
        restarts=sum(_restarts(one) for one in _containers(body)),
        died_at=max((at for one in _containers(body) if (at := _died_at(one)) is not None), default=None),
        secrets=frozenset(name for _, name in volumes),
        default_secret=next((name for volume, name in volumes if volume == DEFAULT_VOLUME), None),
    )


def _finished(status: Json) -> bool:
    """The phase, or what the kubelet says a second before it: its status manager holds a final phase back until the
    sandbox is gone, but not the reason of the conditions (kubernetes/kubernetes pkg/kubelet/status/generate.go).
    """
    reasons = {
        condition.get("reason")
        for condition in status.get("conditions") or []
        if condition["type"] in ("Ready", "ContainersReady") and condition["status"] == "False"
    }
    return status.get("phase") in FINAL or not reasons.isdisjoint(("PodCompleted", "PodFailed"))


def _containers(body: Json) -> Iterator[Json]:
    status = body.get("status", {})
    yield from status.get("containerStatuses") or ()
    yield from status.get("initContainerStatuses") or ()  # native sidecars are among them


def _restarts(container: Json) -> int:
    # One that waits after its end will be started again, and is counted only then (back-off is up to five minutes).
    waits = "waiting" in container.get("state", {}) and "terminated" in container.get("lastState", {})
    return int(container.get("restartCount", 0)) + waits


def _died_at(container: Json) -> datetime | None:
    at = container.get("lastState", {}).get("terminated", {}).get("finishedAt")
    return datetime.fromisoformat(at) if at else None


def _secrets_of(volume: Json) -> Iterator[str]:
    if name := (volume.get("secret") or {}).get("secretName"):
        yield name
    for source in (volume.get("projected") or {}).get("sources") or []:
        if name := (source.get("secret") or {}).get("name"):
            yield name
