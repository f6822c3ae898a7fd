"""What the platform team sets: the chart writes it as JSON, the operator reads it once at start."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from valetkey.kinds.base import Duration, Model


def _private(url: str) -> str:
    """The URL, if what is sent there is read by nobody on the way; raises ValueError."""
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL here has no user and no password: everybody who reads the settings would have them")
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and _loopback(parts.hostname))):
        raise ValueError("not a URL of https, or of http on loopback")
    return url


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class DoorSettings(Model):
    """The door's settings (`valetkey serve`); every field is a chart value or follows from one."""

    agent_namespaces: tuple[str, ...] = Field(min_length=1, description="Namespaces whose agents are served.")
    port: int = Field(ge=1, le=65535, description="Where they are.")
    host: str = Field(default="", pattern=r"^[0-9A-Fa-f.:]*$", description="The address of it; empty, all.")
    log_format: Literal["json", "text"] = Field(default="json", description="How the door's output is written.")
    account_directory: Path = Field(description="Where the kubelet keeps the door's token and the API server's CA.")
    certificate_directory: Path = Field(description="Where tls.crt and tls.key are, and are renewed.")
    run_directory: Path = Field(description="Where the file is that the kubelet's probe looks at.")


class Settings(Model):
    """The operator's settings; every field is a chart value or follows from one."""

    cluster: str = Field(default="", description="This cluster's name, for the log and for policies.")
    namespace: str = Field(default="valetkey-system", description="The operator's own namespace.")
    leader: str = Field(default="valetkey", description="The Leader there, which names the replica that leads.")
    grants_namespace: str = Field(default="valetkey-grants", description="Where the accounts of grants live; locked.")
    agent_namespaces: tuple[str, ...] = Field(min_length=1, description="Namespaces whose agents are served.")
    targets: tuple[str, ...] = Field(default=(), description="Namespaces in which rights may be handed out.")
    cluster_roles: tuple[str, ...] = Field(default=(), description="ClusterRoles that may be handed out.")
    audience: str | None = Field(default=None, description="The API server's audience; left out, its own default.")
    limits_active: int = Field(default=20, ge=1, description="Live grants per policy and ServiceAccount by default.")
    limits_requests: int = Field(
        default=2000, ge=1, description="Requests of one ServiceAccount that are kept; what comes beyond is dropped."
    )
    limits_daily_log: int = Field(
        default=64, ge=1, le=1 << 20, description="MiB of the log that what one ServiceAccount asks may fill in a day."
    )
    pending_ttl: Duration = Field(
        default=timedelta(minutes=5), alias="pendingTTL", description="How long a request may wait."
    )
    history_ttl: Duration = Field(
        default=timedelta(hours=1), alias="historyTTL", description="How long an ended request stays."
    )
    renew_after: Duration = Field(
        default=timedelta(minutes=6),
        ge=timedelta(seconds=1),
        le=timedelta(minutes=8),
        description="A credential's age at which its successor is made; a token lives ten minutes.",
    )
    sweep_every: Duration = Field(
        default=timedelta(minutes=5),
        ge=timedelta(seconds=1),
        description="How often what belongs to no TaskGrant is looked for.",
    )
    approvals_webhook: Annotated[str, AfterValidator(_private)] | None = Field(
        default=None, description="Where it is told that a request waits for people; https, or http on loopback."
    )
    workers: int = Field(default=32, ge=1, le=256, description="Keys worked on at once.")
    account_directory: Path = Field(
        default=Path("/var/run/secrets/kubernetes.io/serviceaccount"),
        description="Where the kubelet keeps the operator's token and the API server's CA.",
    )
    log_format: Literal["json", "text"] = Field(default="json", description="How the operator's output is written.")
    log_directory: Path = Field(description="Where the log is written.")
    log_keep: Duration | None = Field(
        default=None,
        ge=timedelta(hours=72),
        description="How long a file of the log is kept after its last record; left out, for ever.",
    )
    guards: Path = Field(description="A JSON list of the admission policies and bindings that must be in force.")
    metrics_port: int = Field(default=0, ge=0, le=65535, description="Where metrics are served; 0, nowhere.")
    metrics_host: str = Field(
        default="", pattern=r"^[0-9A-Fa-f.:]*$", description="The address that they are served on; empty, all."
    )
    log_server_port: int = Field(default=0, ge=0, le=65535, description="Where the log is served; 0, nowhere.")
    log_server_host: str = Field(
        default="", pattern=r"^[0-9A-Fa-f.:]*$", description="The address that it is served on; empty, all."
    )
    run_directory: Path = Field(description="Where the files are that the kubelet's probes look at.")
    server: str | None = Field(
        default=None, description="The API server that agents reach, for the delivered kubeconfig."
    )
