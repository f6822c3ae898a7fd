"""What people are told of a TaskGrant that is still there."""

from __future__ import annotations

from typing import Any


def held_up(body: dict[str, Any]) -> str:
    """The reason and message by which its revocation waits; empty where it does not."""
    conditions = body.get("status", {}).get("conditions", ())
    waits = [entry for entry in conditions if entry["type"] == "Revoked" and entry["status"] == "Unknown"]
    return "; ".join(f"{entry['reason']}: {entry['message']}" for entry in waits)


def expiry(body: dict[str, Any]) -> str | None:
    """When its last token expires by itself; None where it has none."""
    at: str | None = body.get("status", {}).get("credential", {}).get("expiresAt")
    return at
