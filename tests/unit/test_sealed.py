"""Sealed delivery: what is sealed opens for one key, one request, one pod, one grant and one sequence."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from pydantic import ValidationError

from tests.cluster.api import Json
from valetkey.delivery.sealed import binding, plan, seal
from valetkey.errors import InvalidError
from valetkey.kinds.credential import Credential, Secret
from valetkey.kinds.delivery import Sealed, SealedDelivered
from valetkey.kinds.taskgrant import TaskGrant
from valetkey.reasons import Reason

CLIENTS = Path(__file__).parents[2] / "clients"
VECTOR = json.loads((CLIENTS / "vector.json").read_text())
REQUEST: Json = VECTOR["request"]
SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_128_GCM)
KEY = X25519PrivateKey.from_private_bytes(base64.b64decode(VECTOR["privateKey"]))
UIDS = (REQUEST["metadata"]["uid"], REQUEST["spec"]["subject"]["podUID"], REQUEST["status"]["grant"]["uid"])
TO = Sealed(public_key=REQUEST["spec"]["delivery"]["sealed"]["publicKey"])
OWN = frozenset({"ca.crt", "kubeconfig"})
FILES = {"token": "eyJ.secret", "namespace": "shop", "ca.crt": "CA", "kubeconfig": "{}"}


def grant() -> TaskGrant:
    request, pod, own = UIDS
    subject = {"namespace": "shop", "podName": "one", "podUID": pod, "nodeName": "n", "serviceAccount": "fixer"}
    scopes = [{"namespace": "shop", "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}]
    account = {"kind": "ServiceAccount", "namespace": "valetkey-grants", "name": "a"}
    at = "2026-01-01T00:00:00Z"
    return TaskGrant.model_validate(
        {
            "metadata": {"name": "r", "namespace": "shop", "uid": own, "creationTimestamp": at},
            "spec": {
                "request": {"name": "r", "uid": request},
                "order": {
                    "requestUID": request,
                    "subject": subject,
                    "task": {"id": "t", "purpose": "fix"},
                    "policy": {"name": "p", "uid": "u", "generation": 1},
                    "decision": "d",
                    "access": {"kubernetes": {"scopes": scopes}},
                    "line": "shop: get pods",
                    "openedAt": at,
                    "notAfter": at,
                },
                "plan": {"kubernetes": {"account": account, "objects": []}},
                "delivery": {"sealed": TO.to_api()},
            },
        }
    )


def sealed(sequence: int = 3) -> SealedDelivered:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    files = {name: Secret(text) for name, text in FILES.items()}
    credential = Credential(
        id="JTI=1", username="u", issued_at=at, expires_at=at, files=files, known_to_reader=OWN, made=()
    )
    return seal(grant(), credential, TO, sequence)


def opened(one: SealedDelivered, key: X25519PrivateKey = KEY, info: bytes | None = None) -> dict[str, str]:
    text = SUITE.decrypt(
        base64.b64decode(one.ciphertext), key, info=binding(*UIDS, one.sequence) if info is None else info
    )
    return dict(json.loads(text))


def test_its_key_opens_what_is_sealed_and_finds_no_server_in_it() -> None:
    assert opened(sealed()) == {"token": "eyJ.secret", "namespace": "shop"}


def test_no_two_ciphertexts_are_alike_and_none_shows_the_token() -> None:
    one, other = sealed(), sealed()
    assert one.ciphertext != other.ciphertext
    assert b"secret" not in base64.b64decode(one.ciphertext)


OTHER = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    "info",
    [
        binding(OTHER, *UIDS[1:], 3),
        binding(UIDS[0], OTHER, UIDS[2], 3),
        binding(*UIDS[:2], OTHER, 3),
        binding(*UIDS, 2),
        binding(*UIDS, 4),
        binding(UIDS[1], UIDS[0], UIDS[2], 3),
        b"",
    ],
    ids=["another request", "another pod", "another grant", "a lower sequence", "a higher one", "swapped", "nothing"],
)
def test_what_is_sealed_for_one_is_worthless_elsewhere(info: bytes) -> None:
    with pytest.raises(InvalidTag):
        opened(sealed(), info=info)


def test_another_key_opens_nothing() -> None:
    with pytest.raises(InvalidTag):
        opened(sealed(), key=X25519PrivateKey.generate())


@pytest.mark.parametrize("at", [0, 31, 32, 60, -1])
def test_a_ciphertext_of_which_one_bit_was_changed_does_not_open(at: int) -> None:
    one = sealed()
    changed = bytearray(base64.b64decode(one.ciphertext))
    changed[at] ^= 1
    with pytest.raises(InvalidTag):
        opened(one.model_copy(update={"ciphertext": base64.b64encode(changed).decode()}))


def test_info_is_what_is_written_down() -> None:
    info = binding(*UIDS, 3)
    assert info.hex() == VECTOR["info"]
    assert len(info) == 127
    assert (info[:11], info[11:47].decode(), info[47:83].decode(), info[83:119].decode()) == (b"valetkey/v1", *UIDS)
    assert int.from_bytes(info[119:], "big") == 3


def test_the_vector_opens() -> None:
    assert opened(SealedDelivered.model_validate(REQUEST["status"]["delivery"]["sealed"])) == VECTOR["files"]


@pytest.mark.parametrize("low", [bytes(32), bytes([1, *bytes(31)])], ids=["zero", "one"])
def test_a_key_that_seals_for_everybody_is_refused(low: bytes) -> None:
    with pytest.raises(InvalidError) as refused:
        plan(Sealed(public_key=base64.b64encode(low).decode()))
    assert refused.value.reason is Reason.PUBLIC_KEY_INVALID
    assert plan(TO) == TO


@pytest.mark.parametrize("text", ["", "AAAA", "=" * 44, base64.b64encode(bytes(33)).decode(), "A" * 42 + "B="])
def test_what_is_not_32_bytes_in_base64_is_no_key(text: str) -> None:
    with pytest.raises(ValidationError):
        Sealed(public_key=text)
