"""The one HTTP session to the API server, authenticated by the pod's own rotating token."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import aiohttp


def server() -> str:
    """The API server's address as the pod's environment gives it; raises KeyError outside a cluster."""
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    port = os.environ["KUBERNETES_SERVICE_PORT"]
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def certificate_authority(account: Path) -> str:
    """The API server's CA certificates, PEM."""
    return (account / "ca.crt").read_text()


class TokenFile:
    """Sends the token that the kubelet keeps fresh in a file; a refused token is read again once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._modified = -1
        self._header = ""

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Adds the header, as an aiohttp client middleware."""
        request.headers["Authorization"] = self._authorization()
        response = await handler(request)
        if response.status == 401 and self._authorization() != request.headers["Authorization"]:
            request.headers["Authorization"] = self._header
            response = await handler(request)
        return response

    def _authorization(self) -> str:
        # The kubelet swaps a symlink, so the file behind the name changes its modification time at each rotation.
        modified = self._path.stat().st_mtime_ns
        if modified != self._modified:
            self._header = f"Bearer {self._path.read_text().strip()}"
            self._modified = modified
        return self._header


def open_session(account: Path, *, connections: int = 50) -> aiohttp.ClientSession:
    """Opens the session of the pod whose token and CA are in a folder; must be called inside the running loop."""
    context = ssl.create_default_context(cafile=str(account / "ca.crt"))
    return aiohttp.ClientSession(
        # Above fifty the API server only queues, watches apart. It closes idle ones after 90 s; they are kept nearly as
        # long, for a revocation that comes out of the blue has no time for a handshake.
        connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=75, ssl=context),
        middlewares=(TokenFile(account / "token"),),
        # To compress its answers would cost the API server more time than it takes to send them.
        headers={"User-Agent": "valetkey", "Accept-Encoding": "identity"},
    )
