"""What does an agent hold while its access lives?"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valetkey.agent import files as files_module
from valetkey.agent.errors import AccessError, Ended

if TYPE_CHECKING:
    from valetkey.agent.pod import Pod
    from valetkey.agent.sealed import Delivered


class Grant:
    """The access to one task's needs; it may be used from any thread."""

    def __init__(self, *, pod: Pod, name: str, uid: str, files: Path) -> None:
        self.name = name
        """The name of the AccessRequest."""
        self.files = files
        """A directory with what was delivered, kept fresh: read the files again, do not keep what they say.

        For Kubernetes those are token and namespace, and ca.crt and kubeconfig beside them.
        """
        self.parent = {"namespace": pod.namespace, "name": name, "uid": uid}
        """What an agent that works for this one passes as `parent=`."""
        self.expires_at: datetime | None = None
        """When the access ends at the latest, by the cluster's clock."""
        self._server = pod.server
        self._delivered: Delivered = {}
        self._over: concurrent.futures.Future[Ended] = concurrent.futures.Future()

    def token(self) -> str:
        """The newest token; raises Ended, and AccessError where this access has none."""
        self._check()
        if "token" not in self._delivered:
            raise self._lacks("token")
        return self._delivered["token"]

    @property
    def kubeconfig(self) -> Path | None:
        """The kubeconfig among the files; None where the access is to something else than Kubernetes."""
        return self.files / "kubeconfig" if files_module.is_for_kubernetes(self._delivered) else None

    def environ(self) -> dict[str, str]:
        """The environment for a program that is to have the access; raises Ended."""
        self._check()
        return os.environ | ({} if self.kubeconfig is None else {"KUBECONFIG": str(self.kubeconfig)})

    def kubernetes(self) -> Any:
        """An ApiClient of the package `kubernetes`, which always sends the newest token; raises Ended, AccessError."""
        self._check()
        if self.kubeconfig is None:
            raise self._lacks("kubeconfig")
        try:
            client = importlib.import_module("kubernetes.client")
        except ImportError as error:
            raise AccessError("grant.kubernetes() needs the package kubernetes: pip install kubernetes") from error

        def refresh(configuration: Any) -> None:
            configuration.api_key["authorization"] = f"Bearer {self.token()}"

        configuration = client.Configuration()
        configuration.host = self._server
        configuration.ssl_ca_cert = str(self.files / "ca.crt")
        configuration.refresh_api_key_hook = refresh
        refresh(configuration)
        return client.ApiClient(configuration)

    @property
    def ended(self) -> Ended | None:
        """Why the access is over; None while it lives."""
        return self._over.result() if self._over.done() else None

    async def wait_ended(self) -> Ended:
        """Waits until the access is over and says why."""
        return await asyncio.shield(asyncio.wrap_future(self._over))

    def renew(self, delivered: Delivered, expires_at: datetime | None) -> None:
        """Its life says: this was delivered."""
        self._delivered, self.expires_at = delivered, expires_at or self.expires_at

    def finish(self, reason: str, message: str) -> None:
        """Its life says: it is over."""
        if not self._over.done():
            self._over.set_result(Ended(reason, message))

    def _lacks(self, what: str) -> AccessError:
        return AccessError(f"this access has no {what}: its files are {', '.join(sorted(self._delivered))}")

    def _check(self) -> None:
        if (over := self.ended) is not None:
            raise Ended(over.reason, over.message)
