"""Delivery to one key, in the request's status: HPKE (RFC 9180), opened by whoever holds the private half.

`valetkey/v1`, byte by byte: clients/README.md.
"""

from __future__ import annotations

import base64
from typing import Final

import orjson
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from valetkey.errors import InvalidError
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.credential import Credential
from valetkey.kinds.delivery import Sealed, SealedDelivered
from valetkey.kinds.taskgrant import TaskGrant
from valetkey.reasons import Reason

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_128_GCM)


def plan(to: Sealed) -> Sealed:
    """The key that the credential will be sealed to; raises InvalidError where nothing can be."""
    try:
        _encrypt(b"", to, b"")
    except ValueError as error:
        raise InvalidError(
            Reason.PUBLIC_KEY_INVALID,
            "spec.delivery.sealed.publicKey is no X25519 key that anything can be sealed to; make a new pair",
        ) from error
    return to


def seal(grant: TaskGrant, credential: Credential, to: Sealed, sequence: int) -> SealedDelivered:
    """What the request's status says: the files, for that key, and for nobody but this request, pod and grant."""
    files = {name: value.reveal() for name, value in credential.files.items() if name not in credential.known_to_reader}
    info = binding(grant.spec.request.uid, grant.spec.order.subject.pod_uid, grant.metadata.uid, sequence)
    ciphertext = _encrypt(orjson.dumps(files, option=orjson.OPT_SORT_KEYS), to, info)
    return SealedDelivered(ciphertext=base64.b64encode(ciphertext).decode(), sequence=sequence)


def next_sequence(request: AccessRequest) -> int:
    """One more than what the request's status holds."""
    delivery = request.status.delivery
    return 1 if delivery is None or delivery.sealed is None else delivery.sealed.sequence + 1


def binding(request_uid: str, pod_uid: str, grant_uid: str, sequence: int) -> bytes:
    """HPKE's `info`: what a ciphertext belongs to; opened as anything else it is refused."""
    return b"valetkey/v1" + "".join((request_uid, pod_uid, grant_uid)).encode() + sequence.to_bytes(8, "big")


def _encrypt(plaintext: bytes, to: Sealed, info: bytes) -> bytes:
    key = X25519PublicKey.from_public_bytes(base64.b64decode(to.public_key))
    return _SUITE.encrypt(plaintext, key, info=info)
