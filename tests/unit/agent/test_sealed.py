"""What was sealed for this process, pod, request and grant is opened, each sequence once, and nothing else."""

from __future__ import annotations

import base64
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import valetkey
from tests.unit.agent import apiserver
from tests.unit.agent.agents import access, soon
from tests.unit.agent.apiserver import POD, Apiserver
from valetkey.agent import sealed as sealed_module
from valetkey.agent.sealed import Box, Sealed, public_key

GRANT = str(uuid.UUID(int=0x6A))
KEY = X25519PrivateKey.generate()
REQUEST: dict[str, Any] = {
    "metadata": {"uid": str(uuid.UUID(int=0xE0))},
    "spec": {"delivery": {"sealed": {"publicKey": public_key(KEY)}}},
}
TEXT = json.dumps({"namespace": "shop", "token": "granted"})


def sealed(sequence: int = 1, *, text: str = TEXT, pod: str = POD["uid"], says: int | None = None) -> Sealed:
    ciphertext = apiserver.sealed(REQUEST, text, sequence=sequence, grant=GRANT, pod=pod)
    return Sealed(ciphertext=ciphertext, sequence=sequence if says is None else says, grant_uid=GRANT)


def box(key: X25519PrivateKey = KEY, *, request: str = REQUEST["metadata"]["uid"], pod: str = POD["uid"]) -> Box:
    return Box(key, request_uid=request, pod_uid=pod)


def test_what_was_sealed_for_it_is_opened_once_and_then_known() -> None:
    reader, first = box(), sealed()
    opened = reader.open(first)
    assert opened == {"token": "granted", "namespace": "shop"}
    assert reader.open(first) is None
    assert reader.open(sealed(2)) is not None


@pytest.mark.parametrize("sequence", [0, 2, 3])
def test_what_is_not_newer_than_the_last_is_a_replay(sequence: int) -> None:
    reader = box()
    reader.open(sealed(3))
    with pytest.raises(valetkey.NotOpened, match="replay"):
        reader.open(sealed(sequence))
    assert reader.open(sealed(4)) is not None


def flipped(ciphertext: str, at: int) -> str:
    raw = bytearray(base64.b64decode(ciphertext))
    raw[at] ^= 1
    return base64.b64encode(raw).decode()


@pytest.mark.parametrize("at", [0, 31, 32, -1])
def test_a_single_bit_that_differs_is_refused(at: int) -> None:
    good = sealed()
    with pytest.raises(valetkey.NotOpened):
        box().open(Sealed(ciphertext=flipped(good.ciphertext, at), sequence=1, grant_uid=GRANT))


def test_uids_that_read_the_same_one_after_the_other_are_not_the_same() -> None:
    uid, pod = REQUEST["metadata"]["uid"], POD["uid"]
    with pytest.raises(valetkey.NotOpened, match="36 characters"):
        box(request=uid + pod[0], pod=pod[1:]).open(sealed())


def test_what_other_clients_are_tested_with_is_opened_here_too() -> None:
    vector = json.loads((Path(__file__).parents[3] / "clients" / "vector.json").read_text())
    request = vector["request"]
    pod, status = request["spec"]["subject"]["podUID"], request["status"]
    given = Sealed(grant_uid=status["grant"]["uid"], **status["delivery"]["sealed"])
    info = sealed_module._info(request["metadata"]["uid"], pod, given.grant_uid, given.sequence)
    assert info.hex() == vector["info"]
    key = X25519PrivateKey.from_private_bytes(base64.b64decode(vector["privateKey"]))
    assert public_key(key) == request["spec"]["delivery"]["sealed"]["publicKey"]
    assert box(key, request=request["metadata"]["uid"], pod=pod).open(given) == vector["files"]


OTHER = str(uuid.UUID(int=0xBAD))


@pytest.mark.parametrize(
    ("reader", "given"),
    [
        (box(X25519PrivateKey.generate()), sealed()),
        (box(request=OTHER), sealed()),
        (box(pod=OTHER), sealed()),
        (box(), sealed(pod=OTHER)),
        (box(), sealed(1, says=2)),
        (box(), Sealed(ciphertext=sealed().ciphertext, sequence=1, grant_uid=OTHER)),
        (box(), Sealed(ciphertext=sealed().ciphertext, sequence=1, grant_uid="")),
        (box(), Sealed(ciphertext=sealed().ciphertext, sequence=-1, grant_uid=GRANT)),
        (box(), Sealed(ciphertext=sealed().ciphertext, sequence=2**64, grant_uid=GRANT)),
        (box(), Sealed(ciphertext="", sequence=1, grant_uid=GRANT)),
        (box(), Sealed(ciphertext="no base64", sequence=1, grant_uid=GRANT)),
        (box(), sealed(text="[]")),
        (box(), sealed(text="no json")),
        (box(), sealed(text="{}")),
        (box(), sealed(text='{"token": "", "namespace": "shop"}')),
        (box(), sealed(text='{"token": 1, "namespace": "shop"}')),
        (box(), sealed(text='{"kubeconfig": "users: [{exec: evil}]"}')),
        *(
            (box(), sealed(text=json.dumps({name: "x"})))
            for name in ("", "..", ".x", "a/b", "/a", "A", "a\n", "x" * 254)
        ),
    ],
)
def test_what_is_for_another_or_makes_no_sense_is_refused_and_the_next_is_opened(reader: Box, given: Sealed) -> None:
    with pytest.raises(valetkey.NotOpened):
        reader.open(given)
    assert box().open(sealed()) is not None


def test_an_access_that_cannot_be_opened_is_not_used_and_its_task_failed(server: Apiserver) -> None:
    server.decides = lambda name: server.grant(name, ciphertext="AAAA")
    with pytest.raises(valetkey.NotOpened, match="not sealed for this process"), access(server):
        pass
    assert server.outcome() == "Failed"


def test_a_renewal_reaches_the_files_and_the_token(server: Apiserver) -> None:
    with access(server) as grant:
        before = grant.expires_at
        server.grant(grant.name, token="granted-2", sequence=2)
        soon(lambda: (grant.files / "token").read_text() == "granted-2", "the renewal")
        assert grant.token() == "granted-2"
        assert before is not None


@pytest.mark.parametrize("change", [{"sequence": 1}, {"sequence": 3, "ciphertext": "AAAA"}], ids=["replay", "tampered"])
def test_a_renewal_that_cannot_be_opened_replaces_nothing(
    server: Apiserver, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    server.decides = lambda name: server.grant(name, sequence=2)
    with access(server) as grant:
        evil: dict[str, Any] = {"token": "evil", "sequence": 3}
        server.grant(grant.name, **evil | change)
        soon(lambda: "stays in use" in caplog.text, "the refusal")
        assert grant.token() == (grant.files / "token").read_text() == "granted-1"
        server.grant(grant.name, token="granted-4", sequence=4)
        soon(lambda: grant.token() == "granted-4", "the next renewal")


def test_what_an_earlier_process_had_opened_is_opened_again_and_nothing_older() -> None:
    later = Box(KEY, request_uid=REQUEST["metadata"]["uid"], pod_uid=POD["uid"], lowest=4)
    with pytest.raises(valetkey.NotOpened, match="replay"):
        later.open(sealed(3))
    assert later.open(sealed(4)) is not None
