"""How is opened what was delivered to this process alone? HPKE (RFC 9180), bound to request, pod, grant, sequence."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from valetkey.agent.errors import NotOpened

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_128_GCM)
_VERSION: Final = b"valetkey/v1"
_UID: Final = 36
_MOST: Final = 2**64
_FILE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,252}")
_KUBECONFIG: Final = "kubeconfig"
"""It may name programs to run, and says where the API server is: it is written here, and never what was delivered."""


class Sealed(NamedTuple):
    """What a request's status delivers."""

    ciphertext: str
    sequence: int
    grant_uid: str


Delivered = dict[str, str]
"""What was sealed: files, by their names."""


class Box:
    """Opens what is sealed for one key, request and pod, each sequence higher than the last."""

    def __init__(self, key: X25519PrivateKey, *, request_uid: str, pod_uid: str, lowest: int = 0) -> None:
        """`lowest` is the sequence of what an earlier process opened last."""
        self._key, self._request_uid, self._pod_uid, self._lowest = key, request_uid, pod_uid, lowest
        self._last: Sealed | None = None

    def open(self, sealed: Sealed) -> Delivered | None:
        """Opens it; None where it is what was opened last. Raises NotOpened."""
        if sealed == self._last:
            return None
        if sealed.sequence < self._lowest:
            raise NotOpened(f"sequence {sealed.sequence} was delivered after {self._lowest - 1}: it is a replay")
        delivered = _delivered(self._opened(sealed))
        self._last, self._lowest = sealed, sealed.sequence + 1
        return delivered

    def _opened(self, sealed: Sealed) -> bytes:
        try:
            text = base64.b64decode(sealed.ciphertext, validate=True)
            info = _info(self._request_uid, self._pod_uid, sealed.grant_uid, sealed.sequence)
            return _SUITE.decrypt(text, self._key, info=info)
        except (binascii.Error, ValueError, InvalidTag) as error:
            raise NotOpened(
                "what was delivered is not sealed for this process, pod, request and grant, with sequence "
                f"{sealed.sequence} ({error or type(error).__name__}); it was not used"
            ) from error


def public_key(key: X25519PrivateKey) -> str:
    """`spec.delivery.sealed.publicKey`."""
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def _info(request_uid: str, pod_uid: str, grant_uid: str, sequence: int) -> bytes:
    uids = [uid.encode("ascii") for uid in (request_uid, pod_uid, grant_uid)]
    # Uids of one length each, so that no two of them can be read in two ways.
    if any(len(uid) != _UID for uid in uids) or not 0 <= sequence < _MOST:
        raise ValueError("a uid has 36 characters, and a sequence 64 bits")
    return b"".join((_VERSION, *uids, sequence.to_bytes(8, "big")))


def _delivered(text: bytes) -> Delivered:
    try:
        files = json.loads(text)
    except ValueError as error:
        raise NotOpened("what was delivered is no JSON: this version cannot use it") from error
    if not isinstance(files, dict) or not files:
        raise NotOpened("what was delivered is no set of files: this version cannot use it")
    for name, content in files.items():
        if not _FILE.fullmatch(name) or name == _KUBECONFIG:
            raise NotOpened(f"what was delivered has a file {name!r}, a name that is not taken; it was not used")
        if not isinstance(content, str) or not content:
            raise NotOpened(f"what was delivered has no text for {name}: this version cannot use it")
    return files
