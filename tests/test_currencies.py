"""The currencies are those of ISO 4217, and a currency that goes leaves the payments made in it usable."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import iso4217
import pytest

from engine.domain.money import CURRENCIES, DECIMALS, ISO_4217_PUBLISHED
from support.gateway import Gateway, a_gateway

CARD = "4111111111111111"
# Nobody pays with these: units of account and metals, a test code, "no currency"; funds are marked in the table.
NO_MONEY = {"UYW", "XAD", "XAG", "XAU", "XBA", "XBB", "XBC", "XBD", "XDR", "XPD", "XPT", "XSU", "XTS", "XUA", "XXX"}
WITHDRAWN = "ANG BGN BYR CUC EEK HRK LTL LVL MRO SKK SLL STD VEF VEB ZMK ZWD ZWL".split()


def published() -> dict[str, int]:
    """The codes of money in List One, with the decimals of their minor units."""
    return {
        code: int(entry.findtext("CcyMnrUnts") or 0)
        for entry in iso4217.raw_xml.iter("CcyNtry")
        if (code := entry.findtext("Ccy")) not in NO_MONEY | {None} and entry.find("CcyNm").attrib.get("IsFund") is None  # type: ignore[union-attr]
    }


def test_the_currencies_and_their_decimals_are_those_of_the_published_list() -> None:
    assert published() == DECIMALS
    assert date.fromisoformat(iso4217.raw_xml.attrib["Pblshd"]) == ISO_4217_PUBLISHED


def test_withdrawn_currencies_are_out_and_their_successors_in() -> None:
    assert not CURRENCIES.intersection(WITHDRAWN)
    assert CURRENCIES.issuperset("BYN EUR MRU SLE STN VED VES XCG ZMW ZWG".split())


@pytest.fixture(scope="module")
def gateway(module_database: str, module_redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose bank takes every currency."""
    folder = tmp_path_factory.mktemp("currencies")
    with a_gateway(
        module_database, module_redis_url, "http://127.0.0.1:9", folder, PENSTOCK_CONNECTOR="instant"
    ) as running:
        yield running


@pytest.mark.parametrize("currency", ["ANG", "BGN"])
def test_a_payment_in_a_withdrawn_currency_is_read_captured_and_refunded(gateway: Gateway, currency: str) -> None:
    """Made while the currency was in use: the ledger is told so, since no edge takes it any more."""
    made = gateway.pay(CARD, wait=10, order_id=f"old-{currency}", currency="EUR").json()
    gateway.sql("UPDATE payments SET currency = %s WHERE id = %s", currency, made["id"])

    shown = gateway.get(made["id"])
    listed = gateway.request("GET", f"/v1/payments?order_id=old-{currency}").json()["data"]
    captured = gateway.post(f"/v1/payments/{made['id']}/capture", wait=10)
    refunded = gateway.post(f"/v1/payments/{made['id']}/refund", wait=10)

    assert (shown["currency"], [each["currency"] for each in listed]) == (currency, [currency])
    assert (captured.status_code, captured.json()["currency"], captured.json()["status"]) == (200, currency, "captured")
    assert (refunded.status_code, refunded.json()["currency"], refunded.json()["status"]) == (200, currency, "refunded")


@pytest.mark.parametrize("currency", ["ANG", "BGN", "HRK", "XDR", "XAU", "CLF"])
def test_no_new_payment_is_made_in_what_is_no_currency_any_more(gateway: Gateway, currency: str) -> None:
    refused = gateway.pay(CARD, wait=10, currency=currency)

    assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")
    assert [error["pointer"] for error in refused.json()["errors"]] == ["/currency"]


@pytest.mark.parametrize("currency", ["XCG", "VED", "JPY", "KWD"])
def test_a_payment_is_made_in_a_currency_that_is_new_or_has_no_cents(gateway: Gateway, currency: str) -> None:
    paid = gateway.pay(CARD, wait=10, currency=currency)

    assert (paid.status_code, paid.json()["currency"], paid.json()["amount"]) == (201, currency, 5000)
