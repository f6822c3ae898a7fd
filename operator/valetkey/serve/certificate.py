"""Certificate: what new connections are met with, as it is on disk; it may come late and is renewed there."""

from __future__ import annotations

import asyncio
import logging
import ssl
from datetime import timedelta
from pathlib import Path
from typing import Final

LOOKS_EVERY: Final = timedelta(seconds=5)
"""How soon a certificate that has come, or was renewed, is taken in."""

_logger = logging.getLogger(__name__)


class Certificate:
    """`tls.crt` and `tls.key` of a directory."""

    def __init__(self, directory: Path, *, setting: str) -> None:
        """`setting` is the chart's value that names their Secret."""
        self._files = directory / "tls.crt", directory / "tls.key"
        self._setting = setting
        self._seen = (-1, -1)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def context(self) -> ssl.SSLContext:
        """What a new connection is met with: the newest that can be used."""
        return self._context

    async def wait_for_one(self) -> None:
        """Returns when there is one that can be used."""
        while True:
            if self.look():
                return
            await asyncio.sleep(LOOKS_EVERY.total_seconds())

    async def keep_looking(self) -> None:
        """Takes in whatever comes, for ever."""
        while True:
            await asyncio.sleep(LOOKS_EVERY.total_seconds())
            self.look()

    def look(self) -> bool:
        """Takes in what is new; what cannot be used is said, and the one before it stays. Whether it is in use."""
        try:
            certificate, key = (file.stat().st_mtime_ns for file in self._files)
            if (certificate, key) == self._seen:
                return True
            # A new one each time: one that does not fit its key would take the place of the one that does, and one of
            # another type of key would stand beside it.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(*self._files)
        except (OSError, ssl.SSLError) as error:
            what = f"tls.crt and tls.key of the Secret that {self._setting} names cannot be used"
            _logger.error("%s: %s; mend it, it is tried again", what, error)
            return False
        self._context, self._seen = context, (certificate, key)
        return True
