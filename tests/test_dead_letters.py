"""What is given up is kept whole, shown as waiting for a person, and given back or dropped by one, once, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest

from edge.openapi.dead_letter_schemas import Act, DeadLetterList, WholeDeadLetter
from edge.openapi.payment_schemas import Problem
from engine.domain.ids import partition_of
from engine.streams import keys
from support.gateway import Gateway, a_gateway, eventually

CARD = "4111111111111111"
OPERATOR = "ok_local_operator"


@pytest.fixture(scope="module")
def gateway(module_database: str, module_redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Its bank approves all, its ledger refuses orders named `poison` while it is poisoned."""
    folder = tmp_path_factory.mktemp("gateway")
    with a_gateway(
        module_database, module_redis_url, "http://127.0.0.1:1", folder, PENSTOCK_CONNECTOR="instant"
    ) as running:
        yield running


@pytest.fixture
def cured(gateway: Gateway) -> Iterator[Callable[[], None]]:
    """The ledger is poisoned until this is called."""
    gateway.redis.flushall()
    eventually(lambda: gateway.pay(CARD, wait=10).status_code == 201, "it works again", 20)
    gateway.sql("ALTER TABLE payments ADD CONSTRAINT poison CHECK (order_id <> 'poison') NOT VALID")
    gateway.sql("ALTER TABLE operations ADD CONSTRAINT poison CHECK (key NOT LIKE 'poison%%') NOT VALID")

    def cure() -> None:
        for table in ("payments", "operations"):
            gateway.sql(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS poison")

    yield cure
    cure()


def operate(gateway: Gateway, path: str, body: Any = None, *, key: str | None = None, wait: int = 0) -> httpx.Response:
    headers = {"X-API-Key": OPERATOR, "Idempotency-Key": key or uuid4().hex, "Prefer": f"wait={wait}"}
    return gateway.request("POST", path, headers=headers, json={"reason": "a test"} if body is None else body)


def letters(gateway: Gateway) -> list[dict[str, Any]]:
    answer = gateway.request("GET", "/v1/dead-letters", headers={"X-API-Key": OPERATOR})
    assert answer.status_code == 200, answer.text
    DeadLetterList.model_validate_json(answer.content)
    return list(answer.json()["data"])


def letter(gateway: Gateway, letter_id: str) -> dict[str, Any]:
    answer = gateway.request("GET", f"/v1/dead-letters/{letter_id}", headers={"X-API-Key": OPERATOR})
    assert answer.status_code == 200, answer.text
    WholeDeadLetter.model_validate_json(answer.content)
    return dict(answer.json())


def poisoned(gateway: Gateway, key: str) -> tuple[str, str]:
    """A payment that the ledger refuses, and the id of its dead letter."""
    payment = gateway.pay(CARD, key=key, order_id="poison").json()["id"]
    [buried] = eventually(
        lambda: [each for each in letters(gateway) if each["payment_id"] == payment], "it is given up"
    )
    return payment, buried["id"]


def test_an_authorize_that_was_given_up_can_be_given_back_and_is_authorized(
    gateway: Gateway, cured: Callable[[], None]
) -> None:
    payment, buried = poisoned(gateway, "given-back")
    shown, again = gateway.get(payment), gateway.pay(CARD, key="given-back", order_id="poison")
    whole = letter(gateway, buried)

    cured()
    act = operate(gateway, f"/v1/dead-letters/{buried}/requeue")
    answer = gateway.pay(CARD, key="given-back", order_id="poison", wait=10)

    assert (shown["status"], shown["operation"]["status"], shown["in_doubt"]) == ("pending", "review", False)
    assert (again.status_code, again.json()["operation"]["status"]) == (202, "review")
    assert (whole["cause"], whole["requeueable"], len(whole["history"])) == ("exception", True, 3)
    assert "poison" in whole["reason"]
    Act.model_validate_json(act.content)
    assert (act.status_code, act.json()["result"], act.json()["payment_id"]) == (200, "requeued", payment)
    assert (answer.status_code, answer.json()["status"]) == (201, "authorized")
    assert letters(gateway) == []
    gateway.settled()
    assert not gateway.redis.exists(keys.open_operations(partition_of(payment, 16), payment))


def test_a_dead_letter_is_shown_and_kept_without_a_card_in_clear(gateway: Gateway, cured: Callable[[], None]) -> None:
    _, buried = poisoned(gateway, "no-card")
    raw = {value for fields in gateway.dead() for value in fields.values()}

    shown = letter(gateway, buried)

    assert CARD not in str(shown) and not any(CARD.encode() in value for value in raw)
    assert "[sealed card]" in shown["entry"]["body"]
    assert '"cvv"' not in shown["entry"]["body"]


def test_a_dropped_authorize_is_gone_and_its_key_can_be_used_again(gateway: Gateway, cured: Callable[[], None]) -> None:
    payment, buried = poisoned(gateway, "dropped")

    cured()
    act = operate(gateway, f"/v1/dead-letters/{buried}/drop")
    gone = gateway.request("GET", f"/v1/payments/{payment}")
    again = gateway.pay(CARD, key="dropped", order_id="poison", wait=10)

    assert (act.status_code, act.json()["result"]) == (200, "dropped")
    assert gone.status_code == 404
    assert (again.status_code, again.json()["id"]) == (201, payment)


def test_a_capture_that_was_given_up_shows_as_review_until_it_is_given_back(
    gateway: Gateway, cured: Callable[[], None]
) -> None:
    payment = gateway.pay(CARD, wait=10).json()["id"]
    gateway.post(f"/v1/payments/{payment}/capture", key="poison-capture")
    [buried] = eventually(lambda: letters(gateway), "it is given up")
    shown = gateway.get(payment)
    moments = gateway.request("GET", f"/v1/payments/{payment}/timeline").json()["data"]

    cured()
    operate(gateway, f"/v1/dead-letters/{buried['id']}/requeue", {"reason": "cured"})
    captured = gateway.post(f"/v1/payments/{payment}/capture", key="poison-capture", wait=10)
    told = gateway.request("GET", f"/v1/payments/{payment}/timeline").json()["data"]

    assert (shown["status"], shown["operation"]["verb"], shown["operation"]["status"]) == (
        "authorized",
        "capture",
        "review",
    )
    assert [each["status"] for each in moments if each["type"] == "command"] == ["succeeded", "review"]
    assert (captured.status_code, captured.json()["status"]) == (200, "captured")
    [act] = [each for each in told if each["type"] == "operator_act"]
    assert (act["act"], act["reason"], act["result"]) == ("dead_letter.requeue", "cured", "requeued")
    assert "actor" not in act


def test_an_answered_operation_is_never_given_back(gateway: Gateway, cured: Callable[[], None]) -> None:
    payment, buried = poisoned(gateway, "answered")
    partition, place = buried.removeprefix("dl_").split("-", 1)
    dead = keys.dead(int(partition))
    fields = gateway.redis.xrange(dead, place, place)[0][1]  # type: ignore[index]
    cured()
    operate(gateway, f"/v1/dead-letters/{buried}/requeue")
    eventually(lambda: gateway.get(payment)["status"] == "authorized", "it is authorized")
    twin = f"dl_{partition}-{gateway.redis.xadd(dead, fields).decode()}"  # type: ignore[union-attr]
    for record in gateway.redis.keys("*idem*"):  # type: ignore[union-attr]
        gateway.redis.delete(record)  # Postgres decides

    refused = operate(gateway, f"/v1/dead-letters/{twin}/requeue", key="answered-twin")
    replay = operate(gateway, f"/v1/dead-letters/{twin}/requeue", key="answered-twin")
    dropped = operate(gateway, f"/v1/dead-letters/{twin}/drop")

    Problem.model_validate_json(refused.content)
    assert (refused.status_code, refused.json()["code"]) == (409, "act_refused")
    assert "answered" in refused.json()["detail"]
    assert (replay.status_code, replay.content) == (409, refused.content)
    assert replay.headers["idempotent-replayed"] == "true"
    assert dropped.json()["result"] == "dropped"
    assert gateway.get(payment)["status"] == "authorized"
    gateway.settled()


def test_each_act_is_in_the_audit_once_with_its_reason_and_a_key_replays_it(
    gateway: Gateway, cured: Callable[[], None]
) -> None:
    _, buried = poisoned(gateway, "audited")
    path = f"/v1/dead-letters/{buried}/drop"

    first = operate(gateway, path, {"reason": "ticket 17"}, key="audited")
    replay = operate(gateway, path, {"reason": "ticket 17"}, key="audited")
    reused = operate(gateway, path, {"reason": "ticket 18"}, key="audited")
    late = operate(gateway, path, {"reason": "ticket 17"})

    assert (first.status_code, replay.status_code, replay.content) == (200, 200, first.content)
    assert replay.headers["idempotent-replayed"] == "true"
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")
    assert [error["pointer"] for error in reused.json()["errors"]] == ["/reason"]
    assert late.status_code == 404
    written = gateway.sql("SELECT act, actor, reason, result FROM audit WHERE subject = %s", buried)
    assert written == [("dead_letter.drop", "key_local_operator", "ticket 17", "dropped")]


def test_an_act_that_was_cut_off_is_ended_by_asking_again(gateway: Gateway, cured: Callable[[], None]) -> None:
    payment, buried = poisoned(gateway, "cut-off")
    path = f"/v1/dead-letters/{buried}/requeue"
    cured()
    operate(gateway, path, key="cut-off")
    eventually(lambda: gateway.get(payment)["status"] == "authorized", "it is authorized")
    gateway.sql("UPDATE audit SET result = NULL, done_at = NULL WHERE key = 'cut-off'")  # it died before it could say

    again = operate(gateway, path, key="cut-off")

    assert (again.status_code, again.json()["result"]) == (200, "requeued")
    assert gateway.dead() == []


def test_of_many_operators_exactly_one_gives_a_letter_back_or_drops_it(
    gateway: Gateway, cured: Callable[[], None]
) -> None:
    _, buried = poisoned(gateway, "raced")
    cured()

    def act(number: int) -> httpx.Response:
        return operate(gateway, f"/v1/dead-letters/{buried}/{'drop' if number % 2 else 'requeue'}")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(act, range(8)))

    assert sorted(answer.status_code for answer in answers)[0] == 200
    assert [answer.status_code for answer in answers].count(200) == 1
    assert {answer.status_code for answer in answers} <= {200, 404, 409}
    gateway.settled()


def test_the_list_is_newest_first_and_paged_over_all_partitions(gateway: Gateway, cured: Callable[[], None]) -> None:
    ids = [poisoned(gateway, f"paged-{number}")[1] for number in range(5)]

    pages, cursor = [], ""
    while True:
        path = f"/v1/dead-letters?limit=2{cursor}"
        page = gateway.request("GET", path, headers={"X-API-Key": OPERATOR}).json()
        pages.append([each["id"] for each in page["data"]])
        if not page["has_more"]:
            break
        cursor = f"&cursor={page['next_cursor']}"

    assert len({partition.split("-")[0] for partition in ids}) > 1
    assert [each for page in pages for each in page] == ids[::-1]
    assert [len(page) for page in pages] == [2, 2, 1]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/dead-letters"),
        ("GET", "/v1/dead-letters/dl_0-1-1"),
        ("POST", "/v1/dead-letters/dl_0-1-1/requeue"),
        ("POST", "/v1/dead-letters/dl_0-1-1/drop"),
        ("POST", f"/v1/payments/pay_{'0' * 26}/retry"),
        ("POST", f"/v1/payments/pay_{'0' * 26}/resolve"),
    ],
)
def test_a_merchants_key_opens_nothing_of_the_operators(gateway: Gateway, method: str, path: str) -> None:
    refused = gateway.request(method, path, headers={"Idempotency-Key": "k"}, json={"reason": "curiosity"})

    assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")


def test_an_operators_key_opens_nothing_of_the_merchants(gateway: Gateway) -> None:
    refused = gateway.request("GET", f"/v1/payments/pay_{'0' * 26}/timeline", headers={"X-API-Key": OPERATOR})

    assert (refused.status_code, refused.json()["code"]) == (403, "scope_missing")


@pytest.mark.parametrize(
    ("path", "body", "code", "pointer"),
    [
        ("/v1/dead-letters/dl_0-1-1/drop", {}, "validation_failed", "/reason"),
        ("/v1/dead-letters/dl_0-1-1/drop", {"reason": " "}, "validation_failed", "/reason"),
        ("/v1/dead-letters/dl_0-1-1/drop", {"reason": "two\nlines"}, "validation_failed", "/reason"),
        ("/v1/dead-letters/dl_0-1-1/requeue", {"reason": "r" * 201}, "validation_failed", "/reason"),
        ("/v1/dead-letters/dl_0-1-1/requeue", {"reason": "r", "force": True}, "validation_failed", "/force"),
        ("/v1/dead-letters/dl_0-1-1/requeue", {"reason": "r"}, "not_found", None),
        ("/v1/dead-letters/dl_99-1-1/requeue", {"reason": "r"}, "not_found", None),
        ("/v1/dead-letters/dl_0-0-0/requeue", {"reason": "r"}, "not_found", None),
        (f"/v1/dead-letters/dl_0-{'9' * 20}-1/requeue", {"reason": "r"}, "not_found", None),
        ("/v1/dead-letters/nonsense/drop", {"reason": "r"}, "not_found", None),
        ("/v1/payments/nonsense/retry", {"reason": "r"}, "not_found", None),
        (f"/v1/payments/pay_{'0' * 26}/retry", {"reason": "r"}, "not_found", None),
        (
            f"/v1/payments/pay_{'0' * 26}/retry",
            {"reason": "r", "operation_id": 5},
            "validation_failed",
            "/operation_id",
        ),
        (f"/v1/payments/pay_{'0' * 26}/resolve", {"reason": "r"}, "validation_failed", "/outcome"),
        (f"/v1/payments/pay_{'0' * 26}/resolve", {"reason": "r", "outcome": "maybe"}, "validation_failed", "/outcome"),
    ],
)
def test_a_mistake_is_told_and_leaves_no_act(
    gateway: Gateway, path: str, body: dict[str, Any], code: str, pointer: str | None
) -> None:
    before = gateway.sql("SELECT count(*) FROM audit")

    refused = operate(gateway, path, body)

    assert refused.json()["code"] == code, refused.text
    assert pointer is None or pointer in [error["pointer"] for error in refused.json()["errors"]]
    assert gateway.sql("SELECT count(*) FROM audit") == before


def test_an_act_needs_an_idempotency_key(gateway: Gateway) -> None:
    refused = gateway.request(
        "POST", "/v1/dead-letters/dl_0-1-1/drop", headers={"X-API-Key": OPERATOR}, json={"reason": "r"}
    )

    assert (refused.status_code, refused.json()["code"]) == (400, "idempotency_key_missing")


@pytest.mark.parametrize("cursor", ["nonsense", "dl_0-0-0", f"dl_1-{'9' * 20}-1"])
def test_a_cursor_of_somebody_else_is_refused(gateway: Gateway, cursor: str) -> None:
    refused = gateway.request("GET", f"/v1/dead-letters?cursor={cursor}", headers={"X-API-Key": OPERATOR})

    assert (refused.status_code, refused.json()["code"]) == (400, "malformed_request")
