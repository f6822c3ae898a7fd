"""What does an agent hold while its access lives?"""

from __future__ import annotations

import asyncio
import concurrent.futures
import importlib
import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valetkey.agent.errors import AccessError, Ended

if TYPE_CHECKING:
    from valetkey.agent.pod import Pod


class Grant:
    """The access to one task's needs; it may be used from any thread."""

    def __init__(self, *, pod: Pod, name: str, uid: str, files: Path) -> None:
        self.name = name
        """The name of the AccessRequest."""
        self.files = files
        """A directory with token, ca.crt, namespace and kubeconfig, kept fresh: read them again, do not keep them."""
        self.parent = {"namespace": pod.namespace, "name": name, "uid": uid}
        """What an agent that works for this one passes as `parent=`."""
        self.expires_at: datetime | None = None
        """When the access ends at the latest, by the cluster's clock."""
        self._server = pod.server
        self._token = ""
        self._over: concurrent.futures.Future[Ended] = concurrent.futures.Future()

    def token(self) -> str:
        """The newest token; raises Ended."""
        self._check()
        return self._token

    def environ(self) -> dict[str, str]:
        """The environment for a program that is to have the access; raises Ended."""
        self._check()
        return os.environ | {"KUBECONFIG": str(self.files / "kubeconfig")}

    def kubernetes(self) -> Any:
        """An ApiClient of the package `kubernetes`, which always sends the newest token; raises Ended."""
        self._check()
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

    def renew(self, token: str, expires_at: datetime | None) -> None:
        """Its life says: there is a new token."""
        self._token, self.expires_at = token, expires_at or self.expires_at

    def finish(self, reason: str, message: str) -> None:
        """Its life says: it is over."""
        if not self._over.done():
            self._over.set_result(Ended(reason, message))

    def _check(self) -> None:
        if (over := self.ended) is not None:
            raise Ended(over.reason, over.message)
