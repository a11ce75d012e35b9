"""Merchants and keys: a secret is shown once and stored as a digest, and every act is in the audit."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import Result
from psycopg.rows import dict_row
from typer.testing import CliRunner

from engine.accounts.merchants import OVERLAP_MAX_S, refuse_local_keys
from engine.errors import Broken
from ops.cli.main import app

Penstock = Callable[..., Result]


@pytest.fixture
def penstock(database: str) -> Penstock:
    """Runs a command of `penstock` on a fresh ledger."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, list(arguments), env={"PENSTOCK_DATABASE_URL": database})

    return run


def made(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def rows(database: str, statement: str, parameters: Any = None) -> list[dict[str, Any]]:
    with psycopg.connect(database, autocommit=True, row_factory=dict_row) as connection:
        return connection.execute(statement.encode(), parameters).fetchall()


def seen_by_the_edge(database: str, secret: str) -> dict[str, Any] | None:
    """What an edge that is shown this secret finds."""
    look_up = files("edge").joinpath("sql", "keys_by_digest.sql").read_text()
    found = rows(database, look_up, {"digests": [hashlib.sha256(secret.encode()).digest()]})
    return found[0] if found else None


def test_a_new_merchant_with_a_new_key_is_let_in(penstock: Penstock, database: str) -> None:
    merchant = made(penstock("merchant", "create", "FicMart", "--json"))
    key = made(penstock("key", "create", merchant["id"], "--json"))

    found = seen_by_the_edge(database, key["secret"])
    assert found is not None
    assert (found["merchant_id"], found["scope"], found["disabled"]) == (merchant["id"], "merchant", False)
    assert re.fullmatch(r"sk_[\w-]{43}", key["secret"])


def test_an_operator_key_says_so_in_its_prefix(penstock: Penstock, database: str) -> None:
    key = made(penstock("key", "create", "mer_local", "--scope", "operator", "--json"))

    found = seen_by_the_edge(database, key["secret"])
    assert found is not None and found["scope"] == "operator"
    assert key["secret"].startswith("ok_")


def test_a_secret_is_stored_nowhere(penstock: Penstock, database: str) -> None:
    secret = made(penstock("key", "create", "mer_local", "--json"))["secret"]

    for table in ("api_keys", "audit", "merchants"):
        stored = rows(database, f"SELECT row_to_json(t)::text AS row FROM {table} t")
        assert not any(secret in row["row"] for row in stored)
    assert secret not in penstock("merchant", "list", "--json").output
    assert secret[-4:] in penstock("merchant", "list", "--json").output


def test_a_revoked_key_is_unknown_at_once(penstock: Penstock, database: str) -> None:
    key = made(penstock("key", "create", "mer_local", "--json"))

    penstock("key", "revoke", key["id"], "--reason", "leaked")

    assert seen_by_the_edge(database, key["secret"]) is None


def test_after_a_rotation_both_keys_work_until_the_overlap_is_over(penstock: Penstock, database: str) -> None:
    old = made(penstock("key", "create", "mer_local", "--scope", "operator", "--json"))

    new = made(penstock("key", "rotate", old["id"], "--overlap", "3600", "--reason", "yearly", "--json"))

    seen_old, seen_new = seen_by_the_edge(database, old["secret"]), seen_by_the_edge(database, new["secret"])
    assert seen_old is not None and seen_new is not None
    assert (seen_new["merchant_id"], seen_new["scope"], seen_new["ends_at"]) == ("mer_local", "operator", None)
    [now] = rows(database, "SELECT extract(epoch FROM now())::float8 AS s")
    assert 3500 < seen_old["ends_at"] - now["s"] <= 3600
    assert new["replaces"] == old["id"]


def test_a_rotation_without_overlap_ends_the_old_key_at_once(penstock: Penstock, database: str) -> None:
    old = made(penstock("key", "create", "mer_local", "--json"))

    made(penstock("key", "rotate", old["id"], "--overlap", "0", "--reason", "leaked", "--json"))

    assert seen_by_the_edge(database, old["secret"]) is None


def test_a_second_rotation_never_lengthens_the_life_of_the_old_key(penstock: Penstock, database: str) -> None:
    old = made(penstock("key", "create", "mer_local", "--json"))
    penstock("key", "rotate", old["id"], "--overlap", "60", "--reason", "one")
    before = seen_by_the_edge(database, old["secret"])

    penstock("key", "rotate", old["id"], "--overlap", "86400", "--reason", "two")

    assert before is not None
    assert seen_by_the_edge(database, old["secret"]) == before


def test_the_keys_of_a_disabled_merchant_are_known_as_such(penstock: Penstock, database: str) -> None:
    key = made(penstock("key", "create", "mer_local", "--json"))

    penstock("merchant", "disable", "mer_local", "--reason", "fraud")

    found = seen_by_the_edge(database, key["secret"])
    assert found is not None and found["disabled"]
    refused = penstock("key", "create", "mer_local")
    assert isinstance(refused.exception, Broken)
    assert "`penstock merchant enable mer_local` comes first" in str(refused.exception)


def test_an_enabled_merchant_is_served_as_before(penstock: Penstock, database: str) -> None:
    key = made(penstock("key", "create", "mer_local", "--json"))
    penstock("merchant", "disable", "mer_local", "--reason", "fraud")

    enabled = penstock("merchant", "enable", "mer_local", "--reason", "cleared", "--json")

    found = seen_by_the_edge(database, key["secret"])
    assert found is not None and not found["disabled"]
    assert made(enabled) == {"id": "mer_local", "status": "active"}
    assert made(penstock("key", "create", "mer_local", "--json"))["merchant"] == "mer_local"
    audited = rows(database, "SELECT act, subject, reason FROM audit WHERE act LIKE 'merchant.%' ORDER BY id")
    assert [tuple(row.values()) for row in audited] == [
        ("merchant.disable", "mer_local", "fraud"),
        ("merchant.enable", "mer_local", "cleared"),
    ]


def test_the_list_shows_which_merchants_are_disabled(penstock: Penstock) -> None:
    penstock("merchant", "disable", "mer_other", "--reason", "fraud")

    listed = json.loads(penstock("merchant", "list", "--json").stdout)

    assert {row["id"]: row["status"] for row in listed} == {"mer_local": "active", "mer_other": "disabled"}
    assert "disabled" in penstock("merchant", "list").stdout


def test_an_operators_key_needs_no_merchant_and_is_rotated_and_revoked_like_any(
    penstock: Penstock, database: str
) -> None:
    key = made(penstock("key", "create", "--scope", "operator", "--reason", "Ada", "--json"))
    new = made(penstock("key", "rotate", key["id"], "--reason", "yearly", "--json"))
    penstock("key", "revoke", key["id"], "--reason", "gone")

    found = seen_by_the_edge(database, new["secret"])
    assert found is not None
    assert (found["merchant_id"], found["scope"], found["disabled"]) == (None, "operator", False)
    assert (key["merchant"], new["merchant"], new["secret"][:3]) == (None, None, "ok_")
    assert seen_by_the_edge(database, key["secret"]) is None
    audited = rows(database, "SELECT act, subject, reason, detail ->> 'merchant' AS of FROM audit ORDER BY id")
    assert [tuple(row.values()) for row in audited] == [
        ("key.create", key["id"], "Ada", None),
        ("key.rotate", new["id"], "yearly", None),
        ("key.revoke", key["id"], "gone", None),
    ]


def test_a_merchants_key_without_a_merchant_cannot_be_written(database: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="merchants_key_has_its_merchant"):
        rows(database, "UPDATE api_keys SET merchant_id = NULL WHERE id = 'key_local_other'")


def test_keys_are_listed_with_whose_they_are_and_when_they_were_used(penstock: Penstock, database: str) -> None:
    own = made(penstock("key", "create", "--scope", "operator", "--json"))
    rows(database, "UPDATE api_keys SET used_at = '2031-05-04T12:00:30Z' WHERE id = 'key_local_merchant' RETURNING id")
    penstock("key", "revoke", "key_local_other", "--reason", "unused")
    penstock("merchant", "disable", "mer_local", "--reason", "fraud")

    working = {row["id"]: row for row in json.loads(penstock("key", "list", "--json").stdout)}
    operators = json.loads(penstock("key", "list", "--scope", "operator", "--json").stdout)
    ended = {row["id"] for row in json.loads(penstock("key", "list", "--all", "--json").stdout) if row["ended"]}
    others = json.loads(penstock("key", "list", "--merchant", "mer_other", "--json").stdout)
    table = penstock("key", "list").stdout

    assert set(working) == {"key_local_merchant", "key_local_operator", own["id"]}
    assert working["key_local_merchant"]["last_used_at"] == "2031-05-04T12:00:30+00:00"
    assert working[own["id"]]["last_used_at"] is None and working[own["id"]]["merchant"] is None
    assert working["key_local_merchant"]["merchant_disabled"] and not working[own["id"]]["merchant_disabled"]
    assert {row["id"] for row in operators} == {"key_local_operator", own["id"]}
    assert (ended, others) == ({"key_local_other"}, [])
    assert own["id"] in table and "no merchant" in table and "never" in table and "2031-05-04T12:00Z" in table
    assert own["secret"] not in table


def test_the_list_shows_merchants_with_their_working_keys(penstock: Penstock) -> None:
    penstock("key", "revoke", "key_local_other", "--reason", "unused")

    listed = json.loads(penstock("merchant", "list", "--json").stdout)

    assert [(row["id"], row["name"], row["status"]) for row in listed] == [
        ("mer_local", "Local shop", "active"),
        ("mer_other", "Other shop", "active"),
    ]
    assert [[key["id"] for key in row["keys"]] for row in listed] == [["key_local_merchant", "key_local_operator"], []]
    table = penstock("merchant", "list").output
    assert "mer_local" in table and "key_local_operator" in table


def test_tables_of_merchants_and_keys_fit_80_columns_with_the_longest_names(penstock: Penstock) -> None:
    merchant = made(penstock("merchant", "create", "Fic Mart " * 22, "--id", f"mer_{'m' * 60}", "--json"))["id"]
    old = made(penstock("key", "create", merchant, "--scope", "operator", "--json"))
    new = made(penstock("key", "rotate", old["id"], "--reason", "yearly", "--json"))
    penstock("merchant", "disable", merchant, "--reason", "fraud")

    for table in (penstock("merchant", "list").stdout, penstock("key", "list", "--all").stdout):
        assert max(map(len, table.splitlines())) <= 80
        assert all(each in table for each in (merchant, old["id"], new["id"], "disabled"))


def test_every_act_leaves_one_line_in_the_audit(penstock: Penstock, database: str) -> None:
    penstock("merchant", "create", "FicMart", "--id", "mer_ficmart", "--reason", "contract")
    old = made(penstock("key", "create", "mer_ficmart", "--reason", "shop server", "--json"))
    new = made(penstock("key", "rotate", old["id"], "--reason", "yearly", "--json"))
    penstock("key", "revoke", new["id"], "--reason", "leaked")
    penstock("merchant", "disable", "mer_ficmart", "--reason", "fraud")

    written = rows(database, "SELECT act, subject, reason, actor FROM audit ORDER BY id")
    assert [(row["act"], row["subject"], row["reason"]) for row in written] == [
        ("merchant.create", "mer_ficmart", "contract"),
        ("key.create", old["id"], "shop server"),
        ("key.rotate", new["id"], "yearly"),
        ("key.revoke", new["id"], "leaked"),
        ("merchant.disable", "mer_ficmart", "fraud"),
    ]
    assert all(row["actor"] for row in written)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("merchant", "create", "Twin", "--id", "mer_local"), "there is a merchant mer_local already"),
        (("merchant", "disable", "mer_nobody", "--reason", "r"), "there is no merchant mer_nobody"),
        (("merchant", "enable", "mer_nobody", "--reason", "r"), "there is no merchant mer_nobody"),
        (("key", "create", "mer_nobody"), "there is no merchant mer_nobody"),
        (("key", "create", "mer_nobody", "--scope", "operator"), "there is no merchant mer_nobody"),
        (("key", "list", "--merchant", "mer_nobody"), "there is no merchant mer_nobody"),
        (("key", "revoke", "key_nothing", "--reason", "r"), "there is no working key key_nothing"),
        (("key", "rotate", "key_nothing", "--reason", "r"), "there is no working key key_nothing"),
    ],
)
def test_a_mistake_is_told_and_changes_nothing(
    penstock: Penstock, database: str, arguments: tuple[str, ...], told: str
) -> None:
    everything = "SELECT m.*, k.*, a.* FROM merchants m FULL JOIN api_keys k ON true FULL JOIN audit a ON true"
    before = rows(database, everything)

    result = penstock(*arguments)

    assert isinstance(result.exception, Broken)
    assert told in str(result.exception)
    assert rows(database, everything) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("merchant", "create", "Odd", "--id", "Odd One"),
        ("merchant", "create", " "),
        ("merchant", "create", "n" * 201),
        ("merchant", "create", "two\nlines"),
        ("merchant", "disable", "mer_local", "--reason", ""),
        ("merchant", "enable", "mer_local"),
        ("merchant", "enable", "Local shop", "--reason", "r"),
        ("key", "create"),
        ("key", "create", "mer_\0"),
        ("key", "create", "--scope", "merchant"),
        ("key", "list", "--scope", "everything"),
        ("key", "revoke", "sk_local_merchant", "--reason", "r"),
        ("key", "rotate", "key_local_other", "--reason", "r", "--overlap", str(OVERLAP_MAX_S + 1)),
        ("merchant", "disable", "mer_local"),
        ("key", "revoke", "key_local_other"),
        ("key", "rotate", "key_local_other"),
        ("key", "create", "mer_local", "--scope", "everything"),
        ("key", "rotate", "key_local_other", "--reason", "r", "--overlap", "-1"),
        ("key", "rotate", "key_local_other", "--reason", "r", "--overlap", "soon"),
        ("merchant", "create"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(penstock: Penstock, arguments: tuple[str, ...]) -> None:
    assert penstock(*arguments).exit_code == 2


def test_well_known_keys_are_refused_in_production_until_they_are_revoked(penstock: Penstock, database: str) -> None:
    with pytest.raises(Broken, match="key_local_merchant, key_local_operator, key_local_other"):
        refuse_local_keys(database)

    for key in ("key_local_merchant", "key_local_other", "key_local_operator"):
        penstock("key", "revoke", key, "--reason", "going live")

    refuse_local_keys(database)


def test_a_failure_is_one_sentence_and_exit_code_1(database: str, tmp_path: Path) -> None:
    def ended(database_url: str | None) -> tuple[int, str]:
        environ = {} if database_url is None else {"PENSTOCK_DATABASE_URL": database_url}
        command = [sys.executable, "-m", "ops.cli.main", "merchant", "disable", "mer_nobody", "--reason", "r"]
        done = subprocess.run(command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=30)
        return done.returncode, done.stderr

    assert ended(database) == (1, "penstock: there is no merchant mer_nobody: `penstock merchant list` shows them\n")
    code, told = ended("postgresql://postgres@127.0.0.1:1/penstock")
    assert code == 1
    assert told.startswith("penstock: Postgres at 127.0.0.1:1/penstock, user postgres cannot be reached")
    assert "Traceback" not in told
    code, told = ended(None)
    assert code == 1
    assert told.startswith("penstock: nothing is ready in ")


def test_a_database_without_tables_says_what_to_run(postgres: Any) -> None:
    result = CliRunner().invoke(app, ["merchant", "list"], env={"PENSTOCK_DATABASE_URL": postgres.dsn("postgres")})

    assert "run `penstock migrate` first" in str(result.exception)
