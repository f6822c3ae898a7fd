"""What the operator says is one JSON object a line, whoever says it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from valetkey.output import JsonLines


def line(**more: Any) -> dict[str, Any]:
    """How one record is written."""
    fields = {"name": "valetkey.controller.worker", "levelname": "WARNING", "msg": "shop/r: %s", "args": ("no",)}
    written = JsonLines().format(logging.makeLogRecord(fields | more))
    assert "\n" not in written
    said: dict[str, Any] = json.loads(written)
    return said


def test_a_line_says_when_how_grave_who_and_what() -> None:
    said = line()
    at = datetime.fromisoformat(said.pop("at"))
    assert at.utcoffset() == timedelta()
    assert abs(at - datetime.now(UTC)) < timedelta(minutes=1)
    assert said == {"level": "warning", "logger": "valetkey.controller.worker", "message": "shop/r: no"}


def test_an_exception_is_in_its_line_as_text_with_its_cause() -> None:
    try:
        try:
            raise OSError("the disk is full")
        except OSError as error:
            raise RuntimeError("a bug") from error
    except RuntimeError:
        said = line(exc_info=sys.exc_info())
    assert said["message"] == "shop/r: no"
    assert said["exception"].startswith("Traceback (most recent call last):")
    assert said["exception"].index("OSError: the disk is full") < said["exception"].index("RuntimeError: a bug")


def test_what_others_hang_onto_a_record_is_left_out() -> None:
    assert line(settings=object(), k8s_ref={"uid": "u"}, at="never").keys() == {"at", "level", "logger", "message"}


def test_words_that_agents_chose_make_no_line_of_their_own() -> None:
    assert line(args=('x"}\n{"level": "critical"}\u2028\ud800',))["message"].startswith('shop/r: x"}\n{')


SAYS = """
import logging, warnings
from valetkey.output import configure
configure("{form}")
logging.getLogger("kopf.activities").info("hello")
logging.getLogger("aiohttp.server").error("oh")
logging.getLogger("valetkey").debug("nobody wants to know")
warnings.warn("old")
raise ValueError("the end")
"""


def output(form: str) -> str:
    """What a process says that ends badly."""
    ended = subprocess.run([sys.executable, "-c", SAYS.format(form=form)], capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == ""
    return ended.stdout


def test_all_that_a_process_says_is_json_up_to_why_it_ends() -> None:
    said = [json.loads(line) for line in output("json").splitlines()]
    assert [(one["level"], one["logger"]) for one in said] == [
        ("info", "kopf.activities"),
        ("error", "aiohttp.server"),
        ("warning", "py.warnings"),
        ("critical", "valetkey.output"),
    ]
    assert "old" in said[2]["message"]
    assert said[3]["exception"].endswith("ValueError: the end")


def test_text_is_for_people() -> None:
    assert "INFO kopf.activities: hello\n" in output("text")
