"""An operator at a terminal: sees any payment, gives back and drops what was given up, and is told what went wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from edge.openapi.timeline_schemas import Timeline
from engine.accounts.merchants import os_user
from engine.streams import keys
from ops.cli.main import app
from ops.errors import in_words
from ops.terminal import in_colour
from support.bank_harness import Bank, fresh_cards
from support.gateway import Gateway, a_gateway, eventually

pytest_plugins = ["support.bank_fixtures"]


@pytest.fixture(scope="module")
def gateway(
    module_database: str, module_redis_url: str, calm_bank: Bank, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with a_gateway(module_database, module_redis_url, f"http://127.0.0.1:{calm_bank.port}", folder) as running:
        yield running


@dataclass(frozen=True, kw_only=True)
class Done:
    """A command that has ended; `words` are what a person reads when it failed."""

    code: int
    stdout: str
    words: str


def penstock(gateway: Gateway, *arguments: str, **environ: str) -> Done:
    stores = {"PENSTOCK_DATABASE_URL": gateway.database, "PENSTOCK_REDIS_URL": gateway.redis_url}
    result = CliRunner().invoke(app, list(arguments), env={**stores, **environ})
    words = in_words(result.exception) if isinstance(result.exception, Exception) else None
    return Done(code=result.exit_code, stdout=result.stdout, words=words or result.stderr)


def told(gateway: Gateway, *arguments: str) -> Any:
    """What a command prints with --json."""
    done = penstock(gateway, *arguments, "--json")
    assert done.code == 0, done.words
    return json.loads(done.stdout)


def buried(gateway: Gateway, **fields: str) -> str:
    """The id of a new dead letter, of an entry that somebody wrote by hand."""
    gateway.redis.xadd(keys.commands(3), {"junk": "by hand", **fields})  # type: ignore[dict-item]
    return str(eventually(lambda: told(gateway, "dead-letters", "list")["data"], "it is given up")[0]["id"])


def test_a_payment_is_shown_with_its_operations_and_its_timeline(gateway: Gateway) -> None:
    card = next(fresh_cards)
    payment = gateway.pay(card, key="shown-to-all", wait=10).json()["id"]
    gateway.post(f"/v1/payments/{payment}/capture", wait=10)

    shown, timeline = told(gateway, "payment", "show", payment), told(gateway, "payment", "timeline", payment)
    tables = (
        penstock(gateway, "payment", "show", payment).stdout + penstock(gateway, "payment", "timeline", payment).stdout
    )

    assert shown["payment"] == gateway.get(payment)
    assert [each["verb"] for each in shown["operations"]] == ["authorize", "capture"]
    assert timeline["data"] == gateway.request("GET", f"/v1/payments/{payment}/timeline").json()["data"]
    for words in ("captured", card[-4:], "shown-to-all", "bank attempt", "approved", "authorized to captured"):
        assert words in tables
    assert card not in tables and "\x1b[" not in tables


def test_the_ledger_alone_shows_a_payment_while_redis_is_away(gateway: Gateway) -> None:
    payment = gateway.pay(next(fresh_cards), wait=10).json()["id"]

    shown = penstock(gateway, "payment", "show", payment, PENSTOCK_REDIS_URL="redis://127.0.0.1:1/0")
    listed = penstock(gateway, "dead-letters", "list", PENSTOCK_REDIS_URL="redis://127.0.0.1:1/0")

    assert shown.code == 0 and "authorized" in shown.stdout
    assert listed.code == 1
    assert listed.words.startswith("Redis") and "PENSTOCK_REDIS_URL" in listed.words


def test_a_dead_letter_is_listed_shown_and_dropped_with_a_reason(gateway: Gateway) -> None:
    letter = buried(gateway, binary="\0\x07")

    table = penstock(gateway, "dead-letters", "list").stdout
    shown = penstock(gateway, "dead-letters", "show", letter).stdout
    refused = penstock(gateway, "dead-letters", "requeue", letter, "--reason", "hope")
    dropped = penstock(gateway, "dead-letters", "drop", letter, "--reason", "written by hand")
    gone = penstock(gateway, "dead-letters", "drop", letter, "--reason", "twice")

    assert letter in table and "unreadable" in table
    assert "by hand" in shown and "requeueable" in shown
    assert (refused.code, refused.stdout) == (1, "")
    assert refused.words.startswith("The act was refused: unreadable entry")
    assert (dropped.code, dropped.stdout) == (0, f"{letter} was dropped\n")
    assert gone.code == 1 and "There is no dead letter" in gone.words
    written = gateway.sql(
        "SELECT act, reason, result, actor <> '', key FROM audit WHERE subject = %s ORDER BY id", letter
    )
    assert [(act, reason) for act, reason, *_ in written] == [
        ("dead_letter.requeue", "hope"),
        ("dead_letter.drop", "written by hand"),
    ]
    assert all(acted and key is None for *_, acted, key in written)


def in_review(gateway: Gateway, bank: Bank, card: str) -> tuple[str, str]:
    """An authorization that the bank answered 400 internal_error after it had placed the hold; and the hold's id."""
    bank.fault("internal_error_after", card_number=card, operation="authorize", times=1)
    payment = gateway.pay(card).json()["id"]
    eventually(lambda: gateway.get(payment)["operation"]["status"] == "review", "it is in review")
    statement = "SELECT t.id FROM transactions t JOIN accounts a ON a.id = t.account_id WHERE a.account_number = %s"
    return payment, f"auth_{bank.sql(statement, card)[0][0]}"


def test_an_operation_in_review_is_resolved_at_the_terminal_and_the_act_is_told(gateway: Gateway, bank: Bank) -> None:
    payment, hold = in_review(gateway, bank, next(fresh_cards))
    resolve = ("payment", "resolve", payment, "--outcome", "approved")

    wanting = penstock(gateway, *resolve, "--reason", "no id given")
    retried = penstock(gateway, "payment", "retry", payment, "--reason", "hope")
    done = penstock(gateway, *resolve, "--reference", hold, "--auth-code", "A1", "--reason", "statement, line 12")
    late = penstock(gateway, *resolve, "--reference", hold, "--reason", "twice")
    told = gateway.request("GET", f"/v1/payments/{payment}/timeline")
    whole = penstock(gateway, "payment", "timeline", payment).stdout

    assert wanting.code == 1 and "/reference" in wanting.words
    assert retried.code == 1 and "refused: its card is gone" in retried.words
    assert done.code == 0 and "carried out: the authorize is succeeded" in done.stdout, done.words
    assert late.code == 1 and "nothing to do" in late.words
    shown = gateway.get(payment)
    assert (shown["status"], shown["bank"]["authorization_id"], shown["bank"]["auth_code"]) == (
        "authorized",
        hold,
        "A1",
    )
    acts = [each for each in told.json()["data"] if each["type"] == "operator_act"]
    assert [(each["act"], each["reason"]) for each in acts] == [
        ("retry", "hope"),
        ("resolve", "statement, line 12"),
    ]
    Timeline.model_validate_json(told.content)
    assert in_words_of(told.json())[-2:] == ["operator_act resolve", "transition authorized"]
    assert f"by {os_user()}" in whole and f'"{os_user()}"' not in told.text


@pytest.mark.parametrize("whose", ["a merchant's", "nobody's"])
def test_an_act_over_http_is_carried_out_once_and_its_key_replays_the_result(
    gateway: Gateway, bank: Bank, whose: str
) -> None:
    operator = {"id": "key_local_operator", "secret": "ok_local_operator"}
    if whose == "nobody's":
        operator = told(gateway, "key", "create", "--scope", "operator")
    payment, hold = in_review(gateway, bank, next(fresh_cards))
    headers = {"X-API-Key": operator["secret"], "Idempotency-Key": payment}
    body = {"reason": "line 13", "outcome": "approved", "reference": hold, "bank_at": "2031-05-04T12:00:00Z"}
    path = f"/v1/payments/{payment}/resolve"

    at_once = gateway.request("POST", path, headers=headers, json=body)
    waited = gateway.request("POST", path, headers={**headers, "Prefer": "wait=10"}, json=body)
    replay = gateway.request("POST", path, headers=headers, json=body)
    reused = gateway.request("POST", path, headers=headers, json={**body, "reference": "auth_other"})

    assert at_once.status_code in (200, 202)
    assert (waited.status_code, waited.json()["actor"]) == (200, operator["id"])
    assert waited.json()["result"].startswith("carried out")
    assert (replay.content, replay.headers["idempotent-replayed"]) == (waited.content, "true")
    assert (reused.status_code, [each["pointer"] for each in reused.json()["errors"]]) == (422, ["/reference"])
    assert gateway.sql("SELECT actor FROM audit WHERE payment = %s", payment) == [(operator["id"],)]
    assert gateway.get(payment)["status"] == "authorized"


def test_an_act_that_nobody_carries_out_in_time_is_exit_code_1_and_stays_written(gateway: Gateway, bank: Bank) -> None:
    payment, hold = in_review(gateway, bank, next(fresh_cards))

    hurried = penstock(
        gateway,
        *("payment", "resolve", payment, "--outcome", "approved", "--reference", hold, "--reason", "r", "--wait", "0"),
    )
    eventually(lambda: gateway.get(payment)["status"] == "authorized", "it is carried out all the same")

    assert hurried.code == 1
    assert "written down and not carried out yet" in hurried.words


def in_words_of(timeline: dict[str, Any]) -> list[str]:
    words = {"command": "verb", "bank_attempt": "answer", "transition": "event", "operator_act": "act"}
    return [f"{each['type']} {each[words[each['type']]]}" for each in timeline["data"]]


def test_the_partitions_are_shown_with_owner_epoch_lease_and_what_waits(gateway: Gateway) -> None:
    letter = buried(gateway)

    rows = told(gateway, "partitions")
    table = penstock(gateway, "partitions").stdout
    epochs = dict(gateway.sql("SELECT id, epoch FROM partitions"))
    penstock(gateway, "dead-letters", "drop", letter, "--reason", "a test")

    assert [row["partition"] for row in rows] == list(range(16))
    assert {row["owner"] for row in rows} == {"worker-1"}
    assert {row["partition"]: row["epoch"] for row in rows} == epochs
    assert all(0 < row["lease_ms"] <= 1000 for row in rows)
    assert [row["dead_letters"] for row in rows] == [int(partition == 3) for partition in range(16)]
    assert all(row["backlog"] == row["pending"] + row["lag"] for row in rows)
    assert "worker-1" in table and "dead letters" in table


@pytest.mark.parametrize(
    "arguments",
    [
        ("payment", "show"),
        ("payment", "show", "nonsense"),
        ("payment", "timeline", "op_" + "0" * 26),
        ("payment", "retry", "pay_" + "0" * 26),
        ("payment", "retry", "pay_" + "0" * 26, "--reason", " "),
        ("payment", "retry", "pay_" + "0" * 26, "--reason", "r", "--operation", "pay_1"),
        ("payment", "retry", "pay_" + "0" * 26, "--reason", "r", "--wait", "-1"),
        ("payment", "resolve", "pay_" + "0" * 26, "--reason", "r"),
        ("payment", "resolve", "pay_" + "0" * 26, "--reason", "r", "--outcome", "perhaps"),
        ("payment", "resolve", "pay_" + "0" * 26, "--reason", "r", "--outcome", "approved", "--bank-at", "noon"),
        ("payment", "correct", "pay_" + "0" * 26, "--reason", "r"),
        ("dead-letters", "list", "--limit", "0"),
        ("dead-letters", "list", "--cursor", "nonsense"),
        ("dead-letters", "show", "7"),
        ("dead-letters", "drop", "dl_1-1-1"),
        ("dead-letters", "drop", "dl_1-1-1", "--reason", ""),
        ("dead-letters", "drop", "dl_1-1-1", "--reason", "two\nlines"),
        ("dead-letters", "requeue", "dl_1-1-1", "--reason", "r" * 201),
        ("partitions", "--yaml"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2_and_asks_nobody(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, list(arguments), env={"PENSTOCK_DATABASE_URL": "postgresql://127.0.0.1:1/penstock"})

    assert done.exit_code == 2, done.output


@pytest.mark.parametrize(
    ("arguments", "environ", "words"),
    [
        (("payment", "show", "pay_" + "0" * 26), {}, "no such payment"),
        (("payment", "timeline", "pay_" + "0" * 26), {}, "no such payment"),
        (("payment", "retry", "pay_" + "0" * 26, "--reason", "r"), {}, "no such payment"),
        (("dead-letters", "show", "dl_1-1-1"), {}, "no dead letter"),
        (("dead-letters", "show", "dl_999-1-1"), {}, "no dead letter"),
        (("partitions",), {"PENSTOCK_REDIS_URL": "redis://127.0.0.1:1/0"}, "PENSTOCK_REDIS_URL"),
        (("partitions",), {"PENSTOCK_DATABASE_URL": "postgresql://127.0.0.1:1/x"}, "cannot be reached"),
        (("dead-letters", "list"), {"PENSTOCK_DATABASE_URL": "postgresql://127.0.0.1:1/x"}, "cannot be reached"),
        (
            ("payment", "show", "pay_" + "0" * 26),
            {"PENSTOCK_REDIS_URL": "", "PENSTOCK_DATABASE_URL": ""},
            "penstock up",
        ),
    ],
)
def test_a_failure_is_told_in_words_and_not_as_a_traceback(
    gateway: Gateway, arguments: tuple[str, ...], environ: dict[str, str], words: str
) -> None:
    done = penstock(gateway, *arguments, **environ)

    assert done.code == 1
    assert words in done.words


@pytest.mark.parametrize(
    "command",
    [
        *(("payment", verb) for verb in ("list", "show", "timeline", "retry", "resolve", "correct")),
        *(("dead-letters", verb) for verb in ("list", "show", "requeue", "drop")),
        *(("holds", verb) for verb in ("list", "release")),
        ("partitions",),
    ],
    ids=" ".join,
)
def test_every_command_teaches_by_example(command: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, [*command, "--help"])

    assert done.exit_code == 0
    assert "Example" in done.output


def test_words_have_the_colour_of_what_they_mean() -> None:
    console = Console(force_terminal=True, color_system="standard")
    with console.capture() as captured:
        for word in ("succeeded", "in_doubt", "review", "unheard-of"):
            console.print(in_colour(word))

    good, waiting, bad, plain = captured.get().splitlines()
    assert good.startswith("\x1b[32m") and waiting.startswith("\x1b[33m") and bad.startswith("\x1b[1;31m")
    assert plain == "unheard-of"
