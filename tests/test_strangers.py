"""A merchant reads and moves what is its own, and nobody else's: every route, on a real engine (edge, stores, worker).

The table is complete: a route that the reference describes and that is not in it fails a test of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.gateway import Gateway, a_gateway, a_payment

CARD = "4111111111111111"
OWNER, STRANGER = "sk_local_merchant", "sk_local_other"
KEY, ORDER, CUSTOMER = "the-owners-key", "the-owners-order", "the-owners-customer"
PAYMENT, HOOK = "/v1/payments/{payment}", "/v1/webhook-endpoints/{endpoint}"

# What names one thing of its owner: a stranger is told that there is no such thing.
NAMED = [
    PAYMENT,
    f"{PAYMENT}/shippable",
    f"{PAYMENT}/timeline",
    f"{PAYMENT}/deliveries",
    "/v1/operations/{operation}",
    HOOK,
    f"{HOOK}/deliveries",
    f"{HOOK}/deliveries/{{delivery}}",
]
# What a stranger finds empty. The words after the bar stand in what the owner reads.
LISTED = [
    f"/v1/payments?order_id={ORDER} | {{payment}}",
    f"/v1/payments?customer_id={CUSTOMER} | {{payment}}",
    "/v1/payments?status=authorized | {payment}",
    f"/v1/operations?idempotency_key={KEY} | {{operation}}",
    "/v1/webhook-endpoints | {endpoint}",
    "/v1/events | {payment}",
]
ACTS = [
    ("POST", f"{PAYMENT}/capture", None),
    ("POST", f"{PAYMENT}/void", None),
    ("POST", f"{PAYMENT}/refund", None),
    ("PATCH", HOOK, {"description": "mine now"}),
    ("DELETE", HOOK, None),
    ("POST", f"{HOOK}/rotate-secret", {}),
    ("POST", f"{HOOK}/disable", None),
    ("POST", f"{HOOK}/enable", None),
    ("POST", f"{HOOK}/redeliver", {"since": "2020-01-01T00:00:00Z"}),
    ("POST", f"{HOOK}/deliveries/{{delivery}}/redeliver", None),
]
# What has no owner, is made by the caller, or is each caller's own.
NOT_ASKED = re.compile(
    r"get /(|livez|readyz|metrics|problems(/.*)?|\.well-known/.*|v1/dead-letters.*)|post /v1/(dead-letters/.*|payments"
    r"|webhook-endpoints|payments/\{payment\}/(retry|resolve|correct))|(get|post) /v1/webhook-secret(/rotate)?"
)


@dataclass(frozen=True, kw_only=True)
class Property:
    """What the owner has, by the names of the table; each merchant's own endpoint beside it."""

    gateway: Gateway
    names: dict[str, str]
    strangers_endpoint: str

    def read(self, path: str, by: str) -> httpx.Response:
        return self.gateway.request("GET", path.format(**self.names), headers={"X-API-Key": by})


@pytest.fixture(scope="module")
def gateway(module_database: str, module_redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    environ = {"PENSTOCK_CONNECTOR": "instant", "PENSTOCK_WEBHOOK_INSIDE": "127.0.0.0/8"}
    folder = tmp_path_factory.mktemp("gateway")
    with a_gateway(module_database, module_redis_url, "http://127.0.0.1:1", folder, **environ) as running:
        yield running


@pytest.fixture(scope="module")
def owned(gateway: Gateway) -> Property:
    """A payment under an order, a customer and a key, and an endpoint with a delivery of its first event."""
    body = a_payment(CARD, order_id=ORDER, customer_id=CUSTOMER)
    paid = gateway.post("/v1/payments", body, key=KEY, wait=10).json()
    payment = str(paid["id"])
    endpoints = {by: an_endpoint(gateway, by) for by in (OWNER, STRANGER)}
    for endpoint in endpoints.values():  # no fan-out makes the stranger's: what one made by a slip would show
        gateway.sql("INSERT INTO deliveries (payment, endpoint, sequence, due_at) VALUES (%s, %s, 1, now())",
                    payment, endpoint)  # fmt: skip
    names = {
        "payment": payment,
        "operation": str(paid["operation"]["id"]),
        "endpoint": endpoints[OWNER],
        "delivery": f"dlv_{payment}_1",
    }
    return Property(gateway=gateway, names=names, strangers_endpoint=endpoints[STRANGER])


def an_endpoint(gateway: Gateway, by: str) -> str:
    headers = {"X-API-Key": by, "Idempotency-Key": "an-endpoint"}
    made = gateway.request("POST", "/v1/webhook-endpoints", json={"url": "http://127.0.0.1:9/x"}, headers=headers)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


@pytest.mark.parametrize("path", NAMED)
def test_what_is_anothers_is_not_found(owned: Property, path: str) -> None:
    mine, theirs = owned.read(path, OWNER), owned.read(path, STRANGER)

    assert mine.status_code == 200, mine.text
    assert (theirs.status_code, theirs.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", LISTED)
def test_a_strangers_list_holds_nothing_of_the_owner(owned: Property, path: str) -> None:
    query, _, marker = path.partition(" | ")
    mine, theirs = owned.read(query, OWNER), owned.read(query, STRANGER)

    assert marker.format(**owned.names) in mine.text, "or nothing is tested here"
    assert theirs.status_code == 200
    assert [each["id"] for each in theirs.json()["data"] if each["id"] != owned.strangers_endpoint] == []


def test_the_deliveries_of_a_payment_are_those_to_its_merchants_endpoints(owned: Property) -> None:
    shown = owned.read(f"{PAYMENT}/deliveries", OWNER).json()["data"]

    assert [each["endpoint_id"] for each in shown] == [owned.names["endpoint"]]


@pytest.mark.parametrize(("method", "path", "body"), ACTS)
def test_nothing_of_anothers_can_be_moved(owned: Property, method: str, path: str, body: dict[str, Any] | None) -> None:
    before = _everything(owned.gateway)
    headers = {"X-API-Key": STRANGER, "Idempotency-Key": f"a-strangers-{path}"[:60]}
    if method != "POST":
        del headers["Idempotency-Key"]

    said = owned.gateway.request(method, path.format(**owned.names), json=body, headers=headers)

    assert (said.status_code, said.json()["code"]) == (404, "not_found")
    assert _everything(owned.gateway) == before


def test_what_was_only_accepted_is_not_shown_to_a_stranger_either(
    database: str, redis_url: str, tmp_path: Path
) -> None:
    with a_gateway(database, redis_url, "http://127.0.0.1:1", tmp_path, workers=0) as gateway:
        accepted = gateway.pay(CARD, key=KEY, order_id=ORDER, customer_id=CUSTOMER).json()
        names = {"payment": accepted["id"], "operation": accepted["operation"]["id"]}
        shown = gateway.get(accepted["id"])
        own = Property(gateway=gateway, names=names, strangers_endpoint="")
        told = {path: own.read(path, STRANGER) for path in NAMED if path.startswith((PAYMENT, "/v1/operations"))}
        listed = {path: own.read(path.partition(" | ")[0], STRANGER) for path in LISTED}
        captured = gateway.request(
            "POST", f"/v1/payments/{names['payment']}/capture", headers={"X-API-Key": STRANGER, "Idempotency-Key": "x"}
        )
        backlog = gateway.backlog()

    assert shown["id"] == names["payment"]
    assert {path: answer.status_code for path, answer in told.items()} == dict.fromkeys(told, 404)
    assert [path for path, answer in listed.items() if answer.json()["data"] != []] == []
    assert (captured.status_code, backlog) == (404, 1)


def test_every_route_is_in_this_table(gateway: Gateway) -> None:
    described = {
        f"{method} {path}"
        for path, methods in gateway.request("GET", "/openapi.json").json()["paths"].items()
        for method in methods
        if method in ("get", "post", "put", "patch", "delete")
    }
    asked = {f"get {path.partition(' | ')[0].partition('?')[0]}" for path in (*NAMED, *LISTED)}
    asked |= {f"{method.lower()} {path}" for method, path, _ in ACTS}

    assert {route for route in described if not NOT_ASKED.fullmatch(route)} == asked


def _everything(gateway: Gateway) -> list[object]:
    """All that a stranger could have moved, as the stores hold it."""
    tables = ("payments", "operations", "webhook_endpoints", "webhook_secrets", "deliveries")
    rows: list[object] = [gateway.sql(f"SELECT to_json(t.*)::text FROM {table} t ORDER BY 1") for table in tables]
    return [*rows, gateway.backlog()]
