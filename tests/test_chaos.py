"""`penstock chaos` as a visitor runs it: one seed of twenty seconds, and a bank whose books were edited by hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import anyio
import psycopg
import pytest
import typer
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from ops.chaos.campaign import CampaignOutcome, campaign
from ops.chaos.command import chaos
from ops.chaos.environment import EnvironmentPlan
from ops.chaos.faults import FaultStage
from ops.chaos.history import PurchaseHistory
from ops.chaos.load import CARDS, FRAIL
from ops.chaos.progress import ProgressBoard

PLAIN = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
SMALL = ("--rate", "40", "--workers", "2", "--edges", "1", "--bank-latency-ms", "20-200")


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_twenty_seconds_of_faults_lose_nothing_and_double_nothing() -> None:
    # Seed 2684 has: a stalled bank, a worker whose clock is wrong, streams deleted and disowned, a fail-over of Redis,
    # workers that die and sleep at crash points, and an edge that dies around acceptance.
    command = [sys.executable, "-m", "ops.cli.main", "chaos", "--seed", "2684", "--minutes", "0.333", "--json", *SMALL]

    done = subprocess.run(command, env=PLAIN, capture_output=True, text=True, check=False, timeout=140)

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    told = json.loads(done.stdout)
    counts = told["counts"]
    assert told["verdict"] == "clean"
    assert (told["breaches"], told["missed_strikes"], told["folder"]) == ([], [], None)
    assert (counts["lost"], counts["doubled"]) == (0, 0)
    assert counts["accepted"] == counts["ended"] + counts["in review"] > 500
    assert counts["effects at the bank"] > 500
    assert told["keys_repeated"] > 0


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_holds_that_a_forgetful_bank_doubled_are_given_back_before_the_count() -> None:
    async def forget(stage: FaultStage, till: PurchaseHistory) -> None:
        fault = {"kind": "drop_key_and_response", "operation": "authorize", "times": 5}
        async with stage.http.post(f"{stage.rig.bank}/control/faults", json=fault) as answer:
            assert answer.status == 201
        for _ in range(300):
            if till.accepted >= 60:
                break
            await anyio.sleep(0.1)

    async def run() -> CampaignOutcome:
        plan = EnvironmentPlan(workers=1, edges=1, bank_failure_rate=0.1, bank_latency_ms=(0, 20), cards=CARDS + FRAIL)
        return await campaign(plan, seed=1, rate_per_s=40, board=ProgressBoard(Console(stderr=True)), during=forget)

    outcome = anyio.run(run)

    assert outcome.verdict.breaches == ()
    assert (outcome.verdict.counts["given back"], outcome.verdict.counts["bank_broke_promise"]) == (5, 0)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_bank_row_that_is_doubled_or_removed_by_hand_is_found() -> None:
    async def tamper(stage: FaultStage, till: PurchaseHistory) -> None:
        for _ in range(300):
            if till.accepted >= 60:
                break
            await anyio.sleep(0.1)
        with psycopg.connect(stage.rig.bank_database, autocommit=True) as bank:
            bank.execute(
                "INSERT INTO transactions (account_id, type, amount_cents, status) "
                "SELECT account_id, type, amount_cents, status FROM transactions WHERE type = 'AUTH_HOLD' LIMIT 1"
            )
            bank.execute(
                "DELETE FROM transactions WHERE id = (SELECT id FROM transactions WHERE type = 'CAPTURE' LIMIT 1)"
            )

    async def run() -> CampaignOutcome:
        plan = EnvironmentPlan(workers=1, edges=1, bank_failure_rate=0, bank_latency_ms=(0, 20), cards=CARDS + FRAIL)
        return await campaign(plan, seed=1, rate_per_s=40, board=ProgressBoard(Console(stderr=True)), during=tamper)

    outcome = anyio.run(run)

    found = [breach.promise for breach in outcome.verdict.breaches]
    assert outcome.verdict.counts["lost"] == 0
    assert found.count("doubled") == 1
    assert found.count("ledger and bank differ") >= 2
    evidence = (outcome.folder / "evidence.txt").read_text()
    assert "# doubled: amount" in evidence
    shutil.rmtree(outcome.folder)


def test_the_schedule_can_be_read_without_running_it() -> None:
    first, second = invoked("--schedule", "--seed", "3"), invoked("--schedule", "--seed", "3")

    assert first.exit_code == 0
    assert first.stdout == second.stdout
    assert "FLUSHALL" in first.stdout


@pytest.mark.parametrize("options", [("--minutes", "0"), ("--bank-latency-ms", "9"), ("--seed", "-1"), ("nobody",)])
def test_a_wrong_command_line_is_exit_code_2(options: tuple[str, ...]) -> None:
    assert invoked(*options).exit_code == 2


def test_chosen_faults_alone_are_scheduled_and_a_wrong_one_is_told_what_there_is() -> None:
    chosen = invoked("--schedule", "--seed", "3", "--only", "bank_stalled", "--only", "stream_trimmed")
    wrong = invoked("--schedule", "--only", "bank_stale")

    assert chosen.exit_code == 0
    assert {line.split()[2] for line in chosen.stdout.splitlines()} == {"bank", "redis"}
    assert wrong.exit_code == 2
    assert "bank_stalled" in wrong.output


def invoked(*options: str) -> Result:
    """The command in this process: for what starts nothing."""
    command = typer.Typer()
    command.command()(chaos)
    return CliRunner().invoke(command, options)
