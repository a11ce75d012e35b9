"""`penstock payment list`: which payments wait, and which belong to an order or a customer, whoever's they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from click.testing import Result
from typer.testing import CliRunner

from engine.errors import Broken
from ops.cli.main import app
from ops.statement import statement
from support.bank_harness import Bank, fresh_cards
from support.gateway import Gateway, a_gateway, a_payment, eventually

pytest_plugins = ["support.bank_fixtures"]

OTHER = {"X-API-Key": "sk_local_other"}


@dataclass(frozen=True, kw_only=True)
class Shop:
    """A gateway with one payment of each kind. `other` is of another merchant, of the same order as `paid`."""

    gateway: Gateway
    order: str
    paid: str
    other: str
    doubtful: str
    reviewed: str


@pytest.fixture(scope="module")
def shop(
    module_database: str, module_redis_url: str, calm_bank: Bank, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    bank, folder = calm_bank, tmp_path_factory.mktemp("shop")
    with a_gateway(module_database, module_redis_url, f"http://127.0.0.1:{bank.port}", folder) as gateway:
        order = f"order-{uuid4()}"
        paid = gateway.pay(next(fresh_cards), wait=10, order_id=order).json()["id"]
        headers = {**OTHER, "Idempotency-Key": uuid4().hex, "Prefer": "wait=10"}
        body = a_payment(next(fresh_cards), order_id=order, customer_id="customer-2")
        other = gateway.request("POST", "/v1/payments", headers=headers, json=body).json()["id"]
        doubted, suspect = next(fresh_cards), next(fresh_cards)
        bank.fault("fail_before", card_number=doubted, times=1_000_000)
        bank.fault("internal_error_after", card_number=suspect, operation="authorize", times=1)
        doubtful = gateway.pay(doubted, order_id="doubtful").json()["id"]
        reviewed = gateway.pay(suspect, order_id="reviewed").json()["id"]
        for payment, status in ((doubtful, "in_doubt"), (reviewed, "review")):
            eventually(
                lambda payment=payment, status=status: gateway.get(payment)["operation"]["status"] == status, status, 30
            )
        yield Shop(gateway=gateway, order=order, paid=paid, other=other, doubtful=doubtful, reviewed=reviewed)
        bank.http.delete("/control/faults")


def listed(shop: Shop, *options: str) -> Result:
    # Redis is not asked: the list is the ledger's.
    stores = {"PENSTOCK_DATABASE_URL": shop.gateway.database, "PENSTOCK_REDIS_URL": "redis://127.0.0.1:1/0"}
    return CliRunner().invoke(app, ["payment", "list", *options], env=stores)


def ids(shop: Shop, *options: str) -> list[str]:
    done = listed(shop, *options, "--json")
    assert done.exit_code == 0, done.output
    return [each["id"] for each in json.loads(done.stdout)["data"]]


def test_what_waits_for_the_bank_and_what_waits_for_a_person_are_listed_apart(shop: Shop) -> None:
    assert ids(shop, "--in-doubt") == [shop.doubtful]
    assert ids(shop, "--review") == [shop.reviewed]
    assert ids(shop, "--review", "--order", "doubtful") == []


def test_orders_and_customers_are_found_whoever_the_merchant_is(shop: Shop) -> None:
    assert ids(shop, "--order", shop.order) == [shop.other, shop.paid]
    assert ids(shop, "--order", shop.order, "--merchant", "mer_local") == [shop.paid]
    assert ids(shop, "--customer", "customer-2") == [shop.other]
    assert ids(shop, "--order", shop.order, "--customer", "customer-2") == [shop.other]
    assert ids(shop, "--order", "nobody's") == []


def test_states_are_a_filter_of_their_own(shop: Shop) -> None:
    assert ids(shop, "--state", "authorized") == [shop.other, shop.paid]
    assert ids(shop, "--state", "pending", "--review") == [shop.reviewed]
    assert ids(shop, "--state", "refunded") == []


def test_pages_hold_each_payment_once_newest_first(shop: Shop) -> None:
    everything = ids(shop)
    pages, after = [], []
    while True:
        page = json.loads(listed(shop, "--limit", "1", *after, "--json").stdout)
        pages += [each["id"] for each in page["data"]]
        if not page["has_more"]:
            break
        after = ["--after", page["next_cursor"]]

    assert pages == everything
    assert set(everything) == {shop.paid, shop.other, shop.doubtful, shop.reviewed}
    assert everything[-2:] == [shop.other, shop.paid]


def test_json_is_the_payment_as_its_merchant_sees_it_and_the_merchant(shop: Shop) -> None:
    [shown] = json.loads(listed(shop, "--order", shop.order, "--merchant", "mer_other", "--json").stdout)["data"]

    assert shown.pop("merchant") == "mer_other"
    assert shown == shop.gateway.request("GET", f"/v1/payments/{shop.other}", headers=OTHER).json()


def test_the_table_has_ids_whole_and_says_how_to_go_on(shop: Shop) -> None:
    told = listed(shop, "--limit", "2").stdout

    for payment in ids(shop, "--limit", "2"):
        assert payment in told
    assert "the same with --after" in told
    assert "in_doubt" in listed(shop, "--in-doubt").stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--merchant", "mer_nobody"), "there is no merchant mer_nobody"),
        (("--after", "pay_" + "0" * 26), "there is no payment"),
    ],
)
def test_what_is_not_there_is_said(shop: Shop, options: tuple[str, ...], words: str) -> None:
    done: Any = listed(shop, *options)

    assert isinstance(done.exception, Broken) and words in str(done.exception)


@pytest.mark.parametrize("column", ["order_id", "customer_id"])
def test_an_order_is_found_by_index_however_many_payments_there_are(shop: Shop, column: str) -> None:
    given = {"order": None, "customer": None, column.removesuffix("_id"): "x", "state": None, "merchant": None}
    given |= {"before_at": None, "before_id": None, "limit": 21}
    plan = plan_of(shop, "payments_listed", given)

    assert column in plan and "Index Cond" in plan
    assert "Seq Scan on payments" not in plan


def plan_of(shop: Shop, name: str, given: dict[str, Any]) -> str:
    with psycopg.connect(shop.gateway.database, autocommit=True) as connection:
        connection.execute("SET enable_seqscan = off")  # the table is small here
        rows = connection.execute(b"EXPLAIN " + statement(name), given).fetchall()
    return "\n".join(line for (line,) in rows)
