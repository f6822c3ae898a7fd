"""The time by which valetkey judges is the API server's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from valetkey.kube.clock import AGREE, Clock

START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Machine:
    """This machine's two clocks, and the API server's."""

    def __init__(self, wrong_by: timedelta = timedelta()) -> None:
        self.steady = 1000.0
        self.wall = START + wrong_by
        self.server = START
        self.clock = Clock(wall=lambda: self.wall.timestamp(), steady=lambda: self.steady)

    def run(self, time: timedelta) -> None:
        self.steady += time.total_seconds()
        self.wall += time
        self.server += time

    def answer(self, *, of: datetime | None = None, took: timedelta = timedelta(milliseconds=5)) -> None:
        sent = self.clock.steady()
        self.run(took)
        self.clock.heard(format_datetime(of or self.server, usegmt=True), sent=sent)

    @property
    def error(self) -> timedelta:
        return abs(self.clock() - self.server)


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_step_of_the_machines_clock_moves_nothing(step: timedelta) -> None:
    machine = Machine()
    machine.wall += step
    machine.run(timedelta(minutes=3))
    assert machine.clock() == START + timedelta(minutes=3)


@pytest.mark.parametrize("wrong_by", [HOUR, -HOUR, timedelta(seconds=7)])
def test_a_start_with_a_wrong_clock_is_mended_by_the_first_answers(wrong_by: timedelta) -> None:
    machine = Machine(wrong_by)
    for _ in range(AGREE):
        machine.answer()
    assert machine.error < timedelta(seconds=1)


def test_a_clock_that_agrees_is_left_as_it_is() -> None:
    machine = Machine(timedelta(milliseconds=400))
    for _ in range(100):
        machine.run(timedelta(milliseconds=137))
        machine.answer()
    assert machine.clock() == machine.server + timedelta(milliseconds=400)


def test_an_answer_that_took_long_says_nothing_against_our_time() -> None:
    machine = Machine()
    for _ in range(AGREE):
        machine.answer(of=machine.server, took=timedelta(seconds=9))
    assert machine.error == timedelta()


def test_one_api_server_of_several_whose_clock_is_wrong_is_not_believed() -> None:
    machine = Machine()
    for _ in range(50):
        machine.answer(of=machine.server + HOUR)
        machine.answer(of=machine.server + HOUR)
        machine.answer()
    assert machine.error == timedelta()


def test_after_a_pause_of_the_whole_machine_whoever_sleeps_is_told() -> None:
    machine, told = Machine(), []
    machine.clock.corrected = lambda: told.append(machine.clock())
    machine.server += HOUR  # a virtual machine that was saved and brought back: its steady clock stood still
    for _ in range(AGREE):
        machine.answer()
    assert len(told) == 1
    assert machine.error < timedelta(seconds=1)


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Foo 2026 00:00:00 GMT"])
def test_an_answer_without_a_date_changes_nothing(date: str) -> None:
    machine = Machine()
    for _ in range(AGREE):
        machine.clock.heard(date, sent=machine.clock.steady())
    assert machine.error == timedelta()
