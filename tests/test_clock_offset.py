"""A process whose clock is set wrong for a test: by the seconds in a file, at once, and never by accident."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from engine.contracts.connector import Clock
from ops.assembly.offset_clock import REREAD_S, OffsetClock
from ops.assembly.process import wall_clock
from ops.assembly.settings import SettingsError, load_settings
from tests.test_settings_checked import KEYS

NOON = datetime(2030, 5, 4, 12, tzinfo=UTC)
NONSENSE = ["", "soon", "nan", "inf", "-inf", "1e30", "3,5", "3 s", "1\n2", "\x00"]


def ahead_by(clock: Clock) -> float:
    return (clock() - datetime.now(UTC)).total_seconds()


def from_file(path: Path) -> Clock:
    return wall_clock(load_settings({**KEYS, "PENSTOCK_CLOCK_OFFSET_FILE": str(path)}))


def test_without_the_setting_the_clock_is_right() -> None:
    assert abs(ahead_by(wall_clock(load_settings(KEYS)))) < 1


@pytest.mark.parametrize(("text", "seconds"), [("3.5", 3.5), ("-691200\n", -691_200), ("  0  ", 0), ("+1e3", 1000)])
def test_the_clock_is_wrong_by_what_stands_in_the_file(tmp_path: Path, text: str, seconds: float) -> None:
    (tmp_path / "clock").write_text(text)

    assert ahead_by(from_file(tmp_path / "clock")) == pytest.approx(seconds, abs=1)


def test_a_missing_file_is_no_offset_and_may_come_and_go(tmp_path: Path) -> None:
    passed = [0.0]
    path = tmp_path / "clock"
    clock = OffsetClock(path, lambda: NOON, lambda: passed[0])
    seen = [clock()]

    for text in ("86400", "-3.25", None):
        path.unlink(missing_ok=True) if text is None else path.write_text(text)
        passed[0] += REREAD_S
        seen.append(clock())

    assert [each - NOON for each in seen] == [timedelta(0), timedelta(days=1), timedelta(seconds=-3.25), timedelta(0)]


def test_the_file_is_not_read_more_often_than_stated(tmp_path: Path) -> None:
    passed = [0.0]
    path = tmp_path / "clock"
    clock = OffsetClock(path, lambda: NOON, lambda: passed[0])
    path.write_text("60")

    passed[0] = REREAD_S * 0.9

    assert clock() == NOON


def test_nonsense_that_comes_later_changes_nothing(tmp_path: Path) -> None:
    passed = [0.0]
    path = tmp_path / "clock"
    path.write_text("60")
    clock = OffsetClock(path, lambda: NOON, lambda: passed[0])

    for text in NONSENSE:
        path.write_text(text)
        passed[0] += REREAD_S

        assert clock() == NOON + timedelta(seconds=60)


@pytest.mark.parametrize("text", NONSENSE)
def test_nonsense_is_refused_at_the_start_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "clock").write_text(text)

    with pytest.raises(SettingsError, match=r"^PENSTOCK_CLOCK_OFFSET_FILE: .*/clock must hold seconds"):
        from_file(tmp_path / "clock")


def test_a_file_that_cannot_be_read_is_refused_at_the_start_in_words(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^PENSTOCK_CLOCK_OFFSET_FILE: .* cannot be read"):
        from_file(tmp_path)


@pytest.mark.parametrize("process", ["edge", "worker", "dispatcher", "auditor"])
def test_every_process_looks_at_the_file_when_it_starts(process: str, tmp_path: Path) -> None:
    (tmp_path / "clock").write_text("soon")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    environ |= {**KEYS, "PENSTOCK_EDGE_PORT": "0", "PENSTOCK_CLOCK_OFFSET_FILE": str(tmp_path / "clock")}

    ended = subprocess.run(
        [sys.executable, "-m", "ops.cli.main", process], env=environ, capture_output=True, text=True, timeout=20
    )

    assert ended.returncode == 1
    assert "penstock: PENSTOCK_CLOCK_OFFSET_FILE: " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_no_process_has_another_clock_than_the_one_of_its_settings() -> None:
    assembly = Path(__file__).parent.parent / "ops" / "assembly"

    asking = {path.name for path in assembly.glob("*.py") if "datetime.now" in path.read_text()}

    assert asking == {"process.py"}
