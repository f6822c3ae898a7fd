"""What the end-to-end tests look for credentials with finds each form in which one might be written down."""

from __future__ import annotations

import base64
import json
import secrets

import pytest

from tests.e2e.witness import found


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def a_token(signature: int) -> str:
    return ".".join(
        (encoded(b'{"alg":"any"}'), encoded(b'{"sub":"somebody"}'), encoded(secrets.token_bytes(signature)))
    )


@pytest.mark.parametrize("signature", [64, 256], ids=["ES256", "RS256"])
@pytest.mark.parametrize("before", ["", "a", "ab", "abc"])
def test_a_token_is_found_in_each_of_its_forms(signature: int, before: str) -> None:
    for _ in range(50):
        token = a_token(signature)
        kubeconfig = f"{before}users: [{{user: {{token: {token}}}}}]"
        forms = {
            "plain": kubeconfig.encode(),
            "in JSON": json.dumps({"message": f'"{token}"'}).encode(),
            "its signature": token.rpartition(".")[2].encode(),
            "a Secret's": json.dumps({"data": {"token": base64.b64encode(token.encode()).decode()}}).encode(),
            "within base64": base64.b64encode(kubeconfig.encode()),
            "within base64 for addresses": base64.urlsafe_b64encode(kubeconfig.encode()),
        }
        assert found({a_token(signature), token}, forms) == list(forms)


def test_what_is_no_token_is_not_taken_for_one() -> None:
    token, other = a_token(256), a_token(256)
    claims = token.rpartition(".")[0]
    texts = {"another": other.encode(), "who it is of": claims.encode(), "a hash": secrets.token_hex(64).encode()}
    assert found({token}, texts) == []
