"""Failpoints: named, counted, off unless set, and every name is a place on the path."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.failpoint import POINTS, FailpointReached, Failpoints

ENGINE = Path(__file__).parent.parent / "engine"


@pytest.mark.parametrize("passing", [1, 2, 5])
def test_a_point_acts_at_its_passing_and_only_once(passing: int) -> None:
    points = Failpoints(f"after-intent:raise@{passing}")
    for _ in range(passing - 1):
        points("after-intent")

    with pytest.raises(FailpointReached):
        points("after-intent")
    points("after-intent")
    points("before-intent")


def test_several_points_are_armed_at_once() -> None:
    points = Failpoints(" before-bank:raise , after-bank:raise@2 ,")
    points("after-bank")

    for name in ("before-bank", "after-bank"):
        with pytest.raises(FailpointReached):
            points(name)


def test_a_point_may_act_at_several_passings() -> None:
    points = Failpoints("before-bank:raise@2,before-bank:raise@4")
    reached = []

    for passing in range(1, 6):
        try:
            points("before-bank")
        except FailpointReached:
            reached.append(passing)

    assert reached == [2, 4]


@pytest.mark.parametrize(
    "text",
    [
        "after-intent",
        "after-intent:",
        "after-intent:explode",
        "nowhere:kill",
        "after-intent:kill@0",
        "after-intent:kill@-1",
        "after-intent:kill@1.5",
        "after-intent:kill@99999999999",
        "AFTER-INTENT:kill",
        "after-intent:kill;before-bank:kill",
        "after-intent:kill\n",
    ],
)
def test_a_text_that_is_no_failpoint_is_refused_by_name(text: str) -> None:
    if text.endswith("\n"):
        Failpoints(text)  # blanks around an entry are nothing
        return
    with pytest.raises(ValueError, match=re.escape(repr(text.strip())) + " is no failpoint"):
        Failpoints(text)


@given(st.text(max_size=30))
def test_any_text_is_understood_or_refused_and_nothing_worse(text: str) -> None:
    try:
        Failpoints(text)
    except ValueError as error:
        assert "is no failpoint" in str(error)


@pytest.mark.parametrize(("action", "number"), [("kill", signal.SIGKILL), ("stop", signal.SIGSTOP)])
def test_the_process_gets_the_real_signal(action: str, number: signal.Signals) -> None:
    code = f"from engine.failpoint import Failpoints; Failpoints('after-bank:{action}')('after-bank')"
    child = subprocess.Popen([sys.executable, "-c", code])
    try:
        _, status = os.waitpid(child.pid, os.WUNTRACED)
        stopped = (status & 0xFF) == 0x7F
        assert (status >> 8 if stopped else status & 0x7F) == number
        assert stopped is (action == "stop")
    finally:
        child.kill()
        child.wait()


def test_every_named_point_is_passed_somewhere() -> None:
    code = "".join(path.read_text() for path in ENGINE.rglob("*.py") if path.name != "failpoint.py")

    assert {name for name in POINTS if f'"{name}"' not in code} == set()
