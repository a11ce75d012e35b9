"""The bench as a visitor runs it: one JSON object with every promised figure, true to the load that was offered."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from ops.bench.rate_search import RATE_MIN


def benched(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ops.cli.main", "bench", *arguments, "--json"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("connector", ["instant", "ficmart_bank"])
def test_every_payment_of_a_light_load_is_accounted_for(connector: str) -> None:
    done = benched("--rate", "50", "--seconds", "2", "--warmup", "1", "--workers", "1", "--connector", connector)

    assert done.returncode in (0, 1), done.stderr[-3000:]
    figures: dict[str, Any] = json.loads(done.stdout)
    assert_the_verdict_is_that_of(done, figures)
    assert (figures["accepted"], figures["completed"], figures["errors"]) == (100, 100, {})
    assert (figures["appendfsync"], figures["probes"]) == ("always", [])
    for latencies in (figures["accept_ms"], figures["end_to_end_ms"]):
        assert 0 < latencies["p50"] <= latencies["p99"] <= latencies["p99_9"]
    assert {"edge", "worker", "bank", "redis", "postgres", "load_generator"} <= set(figures["cpu_s_per_1000"])
    assert {"edge", "worker", "bank", "redis", "postgres"} <= set(figures["memory_mib"])
    # A gateway that did more than a bare endpoint for less would be measured wrongly.
    assert figures["yardstick"]["bare_request_us"] > 0
    assert figures["yardstick"]["payment_in_bare_requests"] > 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_without_a_rate_one_is_found_that_the_machine_sustains() -> None:
    done = benched("--seconds", "2", "--warmup", "1", "--workers", "1")

    figures: dict[str, Any] = json.loads(done.stdout)
    sustained = [probe["rate_per_s"] for probe in figures["probes"] if probe["sustained"]]
    refused = [probe["rate_per_s"] for probe in figures["probes"] if not probe["sustained"]]
    assert figures["probes"]
    assert RATE_MIN <= figures["offered_per_s"] <= max(sustained, default=RATE_MIN) < min(refused)
    assert_the_verdict_is_that_of(done, figures)


def assert_the_verdict_is_that_of(done: subprocess.CompletedProcess[str], figures: dict[str, Any]) -> None:
    """Whether a rate is sustained is up to a machine that is busy with other tests; what is said of it is not."""
    code, words = (0, "Sustained: ") if figures["sustained"] else (1, "Not sustained: ")
    assert done.returncode == code
    assert figures["verdict"].startswith(words)
    assert " ".join(done.stderr.split()).endswith(figures["verdict"])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_more_than_the_machine_can_do_ends_with_exit_code_1_and_what_was_missed() -> None:
    done = benched("--rate", "10000", "--seconds", "1", "--warmup", "0", "--workers", "1")

    figures: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode, figures["sustained"], figures["offered_per_s"]) == (1, False, 10_000)
    assert figures["verdict"].startswith("Not sustained: 10,000 payments/s for 1 s were offered, but ")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_bare_pipeline_carries_every_payment_through_and_tells_what_each_part_cost() -> None:
    done = benched("bare", "--rate", "100", "--seconds", "1")

    assert done.returncode == 0, done.stderr[-3000:]
    figures: dict[str, Any] = json.loads(done.stdout)
    assert figures["payments"] == 100
    assert 0 < figures["payments_per_s"] < 101
    assert {"edge", "worker", "redis", "postgres", "load_generator"} == set(figures["cpu_s_per_1000"])
    assert figures["bare_request_us"] > 0


def test_a_gateway_that_is_not_there_is_told_in_words() -> None:
    done = benched("--against", "http://127.0.0.1:9", "--seconds", "1")

    assert done.returncode == 2, "1 is a verdict"
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr
