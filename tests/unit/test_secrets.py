"""Secrets show themselves to nobody: not in print, not in JSON, not in errors, not on record."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import logging
import pickle
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

import orjson
import pytest

from tests.unit.controller.test_faults import WHOLE, Faulty, Life
from valetkey.delivery.secret import SecretDelivery
from valetkey.errors import AccessError
from valetkey.issuers.kubernetes import KubernetesIssuer
from valetkey.kinds.credential import Credential, Secret
from valetkey.kinds.taskgrant import GrantStatus, TaskGrant
from valetkey.kube.api import ApiError, Json

HIDDEN = "correct-horse"
SECRET = Secret(HIDDEN)
NOW = datetime(2026, 11, 23, tzinfo=UTC)
CREDENTIAL = Credential(id="JTI=1", username="u", issued_at=NOW, expires_at=NOW, files={"token": SECRET}, made=())

SHOWN: dict[str, Callable[[object], str]] = {
    "str": str,
    "repr": repr,
    "ascii": ascii,
    "f-string": lambda value: f"{value}",
    "padded": lambda value: f"{value!s:>80}",
    "percent": lambda value: "%s %r" % (value, value),  # noqa: UP031
    "format": lambda value: "{0} {0!r}".format(value),  # noqa: UP032
    "in a list": lambda value: str([value, {"a": value}, (value,)]),
    "in an exception": lambda value: repr(ValueError("it was", value)),
    "JSON by str": lambda value: json.dumps(value, default=str),
    "orjson by str": lambda value: orjson.dumps([value], default=str, option=orjson.OPT_PASSTHROUGH_DATACLASS).decode(),
}


@pytest.mark.parametrize("value", [SECRET, CREDENTIAL], ids=["secret", "credential"])
@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_what_is_shown_does_not_hold_the_secret(show: Callable[[object], str], value: object) -> None:
    shown = show(value)
    assert HIDDEN not in shown
    assert "Secret(…)" in shown or "Secret(\\u2026)" in shown


def test_a_format_with_any_specification_hides_the_secret() -> None:
    assert f"{SECRET:>100}" == "Secret(…)"


TAKEN: dict[str, Callable[[object], object]] = {
    **{f"pickle protocol {n}": partial(pickle.dumps, protocol=n) for n in range(pickle.HIGHEST_PROTOCOL + 1)},
    "copied deeply": copy.deepcopy,
    "JSON": json.dumps,
    "orjson": orjson.dumps,
}


@pytest.mark.parametrize("value", [SECRET, CREDENTIAL], ids=["secret", "credential"])
@pytest.mark.parametrize("take", TAKEN.values(), ids=TAKEN)
def test_a_secret_is_not_made_into_bytes(take: Callable[[object], object], value: object) -> None:
    with pytest.raises(TypeError) as refused:
        take(value)
    assert HIDDEN not in str(refused.value)


def test_a_credential_is_not_made_into_a_dict() -> None:
    with pytest.raises(TypeError):
        asdict(CREDENTIAL)


def test_a_secret_has_no_attributes_to_dump() -> None:
    assert not hasattr(SECRET, "__dict__")
    assert SECRET.reveal() == HIDDEN


class Echoing(Faulty):
    """An API server that refuses by quoting what it was sent, and fails by quoting what it would have answered."""

    def __init__(self) -> None:
        super().__init__()
        self.quoting = 0
        self.posted: list[str] = []

    async def create(self, path: str, body: Json) -> Json:
        return self._quote(body, await super().create(path, body))

    async def replace(self, path: str, body: Json) -> Json:
        return self._quote(body, await super().replace(path, body))

    def post(self, *words: Any, **more: Any) -> None:
        self.posted.append(repr((words, more)))

    def _quote(self, sent: Json, answer: Json) -> Json:
        if self.quoting and sent.get("kind") in ("Secret", "TokenRequest"):
            data = [base64.b64decode(value).decode() for value in sent.get("data", {}).values()]
            raise ApiError(self.quoting, "Failed", f"{sent} {data} {answer if self.quoting >= 500 else ''}")
        return answer


def hidden_in(world: Faulty) -> list[str]:
    """Every token, and every form that it is stored in."""
    return [form for token in world.tokens for form in (token, base64.b64encode(token.encode()).decode())]


@pytest.mark.parametrize("status", [400, 403, 409, 422, 429, 500, 503])
async def test_no_error_of_issuer_or_delivery_holds_the_secret(status: int) -> None:
    world = Echoing()
    life = Life(world)
    await life.until(lambda: life.credential() is not None)
    grant = TaskGrant.model_validate(world.all("TaskGrant")[0])
    order, plan = grant.spec.order, grant.spec.plan
    unrecorded = grant.model_copy(update={"status": GrantStatus()})
    issuer = KubernetesIssuer(
        world,
        namespace="valetkey-grants",
        targets=("shop",),
        server="https://api",
        certificate_authority="CA",
        clock=lambda: world.now,
    )
    for _ in range(3):
        await world.write("IssuePending")
    credential = await issuer.renew(order, plan)
    world.quoting = status
    delivery = SecretDelivery(world)
    results = [
        *await asyncio.gather(issuer.renew(order, plan), issuer.issue(order, plan), return_exceptions=True),
        *await asyncio.gather(delivery.place(grant, credential), delivery.remove(unrecorded), return_exceptions=True),
    ]
    failures = [result for result in results if result is not None]
    assert len(failures) >= 3
    for failure in failures:
        assert isinstance(failure, AccessError)
        for hidden in hidden_in(world):
            assert hidden not in f"{failure} {failure!r} {failure.message} {failure.args}"


async def test_no_token_is_in_the_log_in_an_event_in_a_status_or_in_what_the_operator_says(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    world = Echoing()
    world.failing, world.status = len(WHOLE) // 2, 0
    life = Life(world)
    await life.until(lambda: life.credential() is not None)
    await life.renew()
    seen = [body for body in world.objects.values() if body["kind"] != "Secret"]
    await life.release()
    seen += [*world.objects.values()]
    said = [caplog.text, repr(world.records), json.dumps(seen), *world.posted]
    assert len(world.tokens) >= 2
    assert world.records
    assert world.posted
    for hidden in hidden_in(world):
        assert all(hidden not in text for text in said)
