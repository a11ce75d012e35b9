# ruff: noqa: E501 (one case a line)
"""Timestamps of clients: every legal form of RFC 3339 is taken, wherever one is, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.timestamp import parse
from support.edge_stand import Stand, assert_refused, running_edge, running_postgres

ENDPOINT = "whe_4DVNQPMZBZFG0VHZJX492ZPG4J"
PAYMENT = "pay_4DVNQPMZBZFG0VHZJX492ZPG4J"
NOON = datetime(2016, 12, 31, 12, tzinfo=UTC)
NEW_YEAR = datetime(2017, 1, 1, tzinfo=UTC)

# fmt: off
LEGAL = {
    "2016-12-31T12:00:00Z":                         NOON,
    "2016-12-31t12:00:00z":                         NOON,
    "2016-12-31 12:00:00Z":                         NOON,
    "2016-12-31T12:00:00+00:00":                    NOON,
    "2016-12-31T12:00:00-00:00":                    NOON,  # the local offset is not known
    "2016-12-31T17:45:00+05:45":                    NOON,
    "2016-12-30T12:01:00-23:59":                    NOON,
    "2017-01-01T11:59:00+23:59":                    NOON,
    "2016-12-31T12:00:00.0Z":                       NOON,
    "2016-12-31T12:00:00.000000000000000000000000000000000000000000000000000000000009Z": NOON,
    "2016-12-31T12:00:00.123456789Z":               NOON + timedelta(microseconds=123456),
    "2016-12-31T12:00:00.5+00:00":                  NOON + timedelta(milliseconds=500),
    "2016-12-31T23:59:60Z":                         NEW_YEAR,
    "2016-12-31T15:59:60-08:00":                    NEW_YEAR,
    "2017-01-01T08:59:60.25+09:00":                 NEW_YEAR + timedelta(milliseconds=250),
    "2016-02-29T00:00:00Z":                         datetime(2016, 2, 29, tzinfo=UTC),
    "0001-01-01T00:00:00Z":                         datetime(1, 1, 1, tzinfo=UTC),
}
ILLEGAL = [
    "", "yesterday", "1900000000", "2016-12-31", "2016-12-31T12:00:00", "2016-12-31T12:00Z", "2016-12-31T12Z", "20161231T120000Z",
    "2016-W52-6T12:00:00Z", "2016-366T12:00:00Z", "2016-12-31T12:00:00+0000", "2016-12-31T12:00:00+00", "2016-12-31T12:00:00 Z",
    "2016-12-31T12:00:00.Z", "2016-12-31T12:00:00,5Z", "2016-12-31_12:00:00Z", "2016-12-31T12:00:00Z\n", " 2016-12-31T12:00:00Z",
    "2016-12-31T24:00:00Z", "2016-12-31T12:60:00Z", "2016-12-31T12:00:61Z", "2016-12-31T12:00:00+24:00", "2016-12-31T12:00:00+01:60",
    "2016-02-30T00:00:00Z", "2015-02-29T00:00:00Z", "2016-13-01T00:00:00Z", "2016-00-01T00:00:00Z", "0000-01-01T00:00:00Z",
    "2016-12-31T12:00:60Z", "2016-12-30T23:59:60Z", "2016-12-31T23:59:60+01:00", "9999-12-31T23:59:60Z", "0001-01-01T00:00:00+00:01",
    "9999-12-31T23:59:59-00:01", "２016-12-31T12:00:00Z", "+2016-12-31T12:00:00Z", "2016-12-31T12:00:00UTC", "2016-12-31T12:00:00[UTC]",
]
# fmt: on


@pytest.fixture(scope="module")
def running() -> Iterator[Stand]:
    with running_postgres() as dsn, running_edge(dsn) as stand:
        yield stand


@pytest.fixture
def edge(running: Stand) -> Stand:
    running.engine.forget()
    return running


@pytest.mark.parametrize(("text", "moment"), LEGAL.items())
def test_a_legal_timestamp_is_its_moment_in_utc(text: str, moment: datetime) -> None:
    assert (parse(text), parse(text).tzinfo) == (moment, UTC)


@pytest.mark.parametrize("text", [*ILLEGAL, None, 1_900_000_000, True, ["2016-12-31T12:00:00Z"]])
def test_anything_else_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(ValueError, match="as in 2031-05-04T12:00:00Z"):
        parse(text)


@given(
    st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29)),
    st.integers(-(24 * 60 - 1), 24 * 60 - 1),
    st.sampled_from("Tt "),
    st.integers(0, 6),
)
def test_any_moment_is_read_back_from_any_offset(moment: datetime, offset: int, separator: str, decimals: int) -> None:
    cut = moment.replace(microsecond=moment.microsecond // 10 ** (6 - decimals) * 10 ** (6 - decimals), tzinfo=UTC)
    local = cut.astimezone(timezone(timedelta(minutes=offset)))
    fraction = f".{local.microsecond:06}"[: decimals + 1] if decimals else ""
    sign, ahead = "-" if offset < 0 else "+", abs(offset)
    text = f"{local.year:04}-{local:%m-%d}{separator}{local:%H:%M:%S}{fraction}{sign}{ahead // 60:02}:{ahead % 60:02}"

    assert parse(text) == cut


@pytest.mark.parametrize(("text", "moment"), LEGAL.items())
def test_a_range_of_redeliveries_takes_every_legal_form(edge: Stand, text: str, moment: datetime) -> None:
    answer = edge.post(f"/v1/webhook-endpoints/{ENDPOINT}/redeliver", {"since": text, "dry_run": True})

    assert answer.status_code == 200
    (asked,) = edge.engine.asked
    assert asked[-1].since == moment  # type: ignore[attr-defined]


@pytest.mark.parametrize("field", ["since", "until"])
@pytest.mark.parametrize("text", ILLEGAL)
def test_a_range_of_redeliveries_takes_no_other_form(edge: Stand, field: str, text: str) -> None:
    body = {"since": "2016-12-31T12:00:00Z", "dry_run": True, field: text}

    answer = edge.post(f"/v1/webhook-endpoints/{ENDPOINT}/redeliver", body)

    assert_refused(edge, answer, 422, "validation_failed")
    (error,) = answer.json()["errors"]
    assert (error["pointer"], "RFC 3339" in error["detail"]) == (f"/{field}", True)


@pytest.mark.parametrize("field", ["bank_at", "expires_at"])
def test_an_operator_may_write_times_in_every_legal_form(edge: Stand, field: str) -> None:
    for number, (text, moment) in enumerate(LEGAL.items()):
        body = {"reason": "statement, line 7", "outcome": "approved", "reference": "auth_1", field: text}
        answer = edge.post(f"/v1/payments/{PAYMENT}/resolve", body, headers={"X-API-Key": "ok_test_operator"})

        assert answer.status_code == 200, text
        assert parse(edge.engine.asked[number][1].word[field]) == moment  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["yesterday", "2016-12-31T12:00:00", "2016-12-31T12:00Z", "2016-W52-6T12:00:00Z"])
def test_an_operator_is_told_how_a_time_is_written(edge: Stand, text: str) -> None:
    body = {"reason": "statement, line 7", "outcome": "approved", "reference": "auth_1", "bank_at": text}

    answer = edge.post(f"/v1/payments/{PAYMENT}/resolve", body, headers={"X-API-Key": "ok_test_operator"})

    assert_refused(edge, answer, 422, "validation_failed")
    assert "RFC 3339" in answer.json()["errors"][0]["detail"]


def test_the_command_line_says_how_a_time_is_written() -> None:
    options = ("--reason", "r", "--outcome", "approved", "--reference", "auth_1", "--bank-at", "2016-12-31T12:00Z")
    command = [sys.executable, "-P", "-m", "ops.cli.main", "payment", "resolve", PAYMENT, *options]

    told = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert told.returncode == 2
    assert "RFC 3339" in " ".join(told.stderr.split())
