"""The cache: the newest version wins, the dead do not come back, and pods are found by what they mount."""

from __future__ import annotations

import json
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.properties import life as given
from valetkey.controller import objects as objects_module
from valetkey.controller.cache import Pods
from valetkey.controller.queue import Key
from valetkey.controller.requests import Requests
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.base import format_time
from valetkey.kube.api import Json
from valetkey.kube.pods import Pod, parse

NOW = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)
KEY = Key("shop", "r")


def asked(
    version: str = "1",
    uid: str = "one",
    *,
    name: str = "r",
    created: datetime = NOW,
    parameters: dict[str, Any] | None = None,
) -> AccessRequest:
    body = given.request(name, {"metadata": {"name": "one", "uid": "pod-uid"}}, "15m", "valetkey-one-a", NOW)
    body["metadata"] |= {"uid": uid, "resourceVersion": version, "creationTimestamp": created}
    body["spec"]["task"]["parameters"] = parameters or {}
    return AccessRequest.model_validate(body)


def pod(name: str, version: str = "1", uid: str = "", **changes: Any) -> Pod:
    body = given.pod(name) | changes
    body["metadata"] = body["metadata"] | {"uid": uid or f"{name}-uid", "resourceVersion": version}
    return parse(body)


def mounts(*secrets: str) -> dict[str, Any]:
    return {"volumes": [{"name": f"v{n}", "secret": {"secretName": name}} for n, name in enumerate(secrets)]}


def version_of(objects: Requests) -> str | None:
    known = objects.get(KEY)
    return known.metadata.resource_version if known else None


@pytest.mark.parametrize(
    ("versions", "newest"),
    [("1", "1"), ("1 2", "2"), ("2 1", "2"), ("9 10", "10"), ("10 9 11 9", "11"), ("2 2", "2")],
)
def test_the_newest_version_wins_in_whatever_order_they_come(versions: str, newest: str) -> None:
    objects = Requests()
    for version in versions.split():
        objects.put(asked(version))
    assert version_of(objects) == newest


def test_what_is_no_newer_is_no_news() -> None:
    objects = Requests()
    assert [objects.put(asked(version)) for version in ("5", "5", "4", "6")] == [True, False, False, True]


def test_the_dead_do_not_come_back() -> None:
    objects = Requests()
    objects.put(asked("1"))
    assert objects.remove(KEY, "one") == asked("1")
    assert objects.put(asked("9")) is False
    assert objects.get(KEY) is None


def test_what_was_never_seen_alive_does_not_come_after_its_death_either() -> None:
    objects = Requests()
    assert objects.remove(KEY, "one") is None
    assert objects.put(asked()) is False


def test_another_object_of_the_same_name_takes_the_place_of_an_older_one() -> None:
    objects = Requests()
    objects.put(asked("900"))
    assert objects.put(asked("5", "two", created=NOW + timedelta(seconds=1)))
    assert version_of(objects) == "5"


def test_an_older_object_of_the_same_name_does_not_take_the_place_of_a_newer_one() -> None:
    objects = Requests()
    objects.put(asked("5", "two", created=NOW + timedelta(seconds=1)))
    assert objects.put(asked("900")) is False
    assert version_of(objects) == "5"


def test_the_death_of_an_earlier_object_leaves_the_one_that_has_its_name_now() -> None:
    objects = Requests()
    objects.put(asked("5", "two"))
    assert objects.remove(KEY, "one") is None
    assert version_of(objects) == "5"


def test_so_many_dead_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects_module, "_REMEMBERED", 2)
    objects = Requests()
    for uid in ("one", "two", "three"):
        objects.remove(KEY, uid)
    assert [objects.put(asked(uid=uid)) for uid in ("three", "two", "one")] == [False, False, True]


def test_objects_may_be_taken_out_while_they_are_gone_through() -> None:
    objects = Requests()
    for name in ("a", "b", "c"):
        objects.put(asked(uid=name, name=name))
    for key, note in objects.notes():
        objects.remove(key, note.uid)
    assert list(objects) == []


@pytest.mark.parametrize("awake", [0, 1])
def test_what_was_not_looked_at_lately_is_what_it_was(awake: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects_module, "AWAKE", awake)
    objects, parameters = (
        Requests(),
        {"n": 9007199254740993, "f": 0.1, "s": "\u2028é", "l": ["a", None], "o": {"b": True, "z": None}, "z": None},
    )
    for name in ("a", "b", "c"):
        objects.put(asked(uid=name, name=name, parameters=parameters))
    for name in ("a", "b", "c"):
        known, expected = objects.get(Key("shop", name)), asked(uid=name, name=name, parameters=parameters)
        assert known == expected
        assert known.spec.access.model_fields_set == expected.spec.access.model_fields_set
        assert known.spec.to_api() == expected.spec.to_api()
    assert objects.remove(Key("shop", "a"), "a") == asked(uid="a", name="a", parameters=parameters)
    assert objects.get(Key("shop", "a")) is None


@pytest.mark.parametrize("levels", [150, 250, 300, 1000, 5000])
def test_what_is_nested_too_deep_to_be_written_as_text_is_kept_as_it_is(
    levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects_module, "AWAKE", 1)
    parameters: dict[str, Any] = {}
    for _ in range(levels):
        parameters = {"p": parameters}
    objects = Requests()
    objects.put(asked(uid="a", name="a", parameters=parameters))
    for name in ("b", "c", "d"):
        objects.put(asked(uid=name, name=name))
    assert [key.name for key in objects if objects.get(key) is not None] == ["a", "b", "c", "d"]
    known, depth = objects.get(Key("shop", "a")), 0
    assert known is not None
    inside = known.spec.task.parameters
    while inside:
        inside, depth = inside["p"], depth + 1
    assert depth == levels


def words(length: int, each: int) -> Json:
    """A rule."""
    return {name: ["a" * length] * each for name in ("apiGroups", "resources", "resourceNames", "verbs")}


MAXIMAL: dict[str, tuple[Json, list[Json], int, int]] = {
    "in memory, by many small strings": ({f"p{n}": ["ж"] * 62 for n in range(26)}, [words(2, 3)] * 16, 250, 60),
    "as text, by quotation marks": ({"a": '"' * 16_380}, [words(248, 1)] * 2, 2000, 160),
}
"""Parameters and rules as heavy as admission lets them be; so many requests of them, and so many MB at most."""


@pytest.mark.parametrize("heavy", MAXIMAL)
def test_what_one_account_may_ask_for_does_not_fill_the_memory(heavy: str) -> None:
    parameters, rules, count, most = MAXIMAL[heavy]
    body = given.request("r", {"metadata": {"name": "one", "uid": "pod-uid"}}, "15m", "valetkey-one-a", NOW)
    body["spec"]["task"] |= {"parameters": parameters, "objective": "😀" * 1024}
    body["spec"]["access"]["kubernetes"]["scopes"] = [{"namespace": "shop", "rules": rules}] * 8
    body["metadata"] |= {"labels": {f"{n:02}".ljust(316, "l"): "v" * 63 for n in range(32)}}
    body["metadata"] |= {"resourceVersion": "1", "creationTimestamp": format_time(NOW)}
    text, requests = json.dumps(body), Requests()
    tracemalloc.start()
    try:
        for number in range(count):
            read = json.loads(text)
            read["metadata"] |= {"name": f"{number}", "uid": f"{number}"}
            requests.put(AccessRequest.model_validate(read))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < most * 1e6, f"{taken / 1e6:.0f} MB"


def test_pods_are_found_by_the_secret_that_they_mount_in_order_of_name() -> None:
    pods = Pods()
    for name in ("c", "a", "b"):
        pods.put(pod(name, spec=mounts("shared", f"own-{name}")))
    assert [one.name for one in pods.mounting("shop", "shared")] == ["a", "b", "c"]
    assert [one.name for one in pods.mounting("shop", "own-b")] == ["b"]
    assert pods.mounting("web", "shared") == []
    assert pods.mounting("shop", "none") == []


def test_a_secret_that_is_projected_counts_as_mounted() -> None:
    pods = Pods()
    projected = {"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "shared"}}]}}]}
    pods.put(pod("a", spec=projected))
    assert [one.name for one in pods.mounting("shop", "shared")] == ["a"]


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_finished_mounts_nothing_any_more(phase: str) -> None:
    pods = Pods()
    pods.put(pod("a", spec=mounts("shared"), status={"phase": phase}))
    assert pods.mounting("shop", "shared") == []


def test_a_pod_that_only_says_it_will_finish_still_mounts_its_secret() -> None:
    pods = Pods()
    conditions = [{"type": "Ready", "status": "False", "reason": "PodFailed"}]
    pods.put(pod("a", spec=mounts("shared"), status={"phase": "Running", "conditions": conditions}))
    assert [one.name for one in pods.mounting("shop", "shared")] == ["a"]


def test_a_pod_that_is_gone_mounts_nothing_and_is_not_found() -> None:
    pods = Pods()
    pods.put(pod("a", spec=mounts("shared")))
    pods.put(pod("b", spec=mounts("shared")))
    pods.remove("shop", "a", "a-uid")
    assert [one.name for one in pods.mounting("shop", "shared")] == ["b"]
    assert pods.get("shop", "a") is None


def test_the_death_of_an_earlier_pod_leaves_the_one_that_has_its_name_now() -> None:
    pods = Pods()
    pods.put(pod("a", uid="first", spec=mounts("old")))
    pods.put(pod("a", uid="second", spec=mounts("new")))
    pods.remove("shop", "a", "first")
    found = pods.get("shop", "a")
    assert found is not None
    assert found.uid == "second"
    assert pods.mounting("shop", "old") == []
    assert pods.mounting("shop", "new") == [found]


def test_the_newest_version_of_a_pod_wins() -> None:
    pods = Pods()
    pods.put(pod("a", "10", status={"phase": "Succeeded"}))
    pods.put(pod("a", "9"))
    found = pods.get("shop", "a")
    assert found is not None
    assert found.finished


def test_a_pod_that_is_dead_does_not_come_back() -> None:
    pods = Pods()
    pods.put(pod("a", "1", spec=mounts("s")))
    pods.remove("shop", "a", "a-uid")
    pods.put(pod("a", "1", spec=mounts("s")))  # a read that was answered before the deletion, taken in after it
    assert pods.get("shop", "a") is None
