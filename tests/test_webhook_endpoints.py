"""Endpoints are their merchant's alone, secrets are shown once, and a repeated key repeats its answer."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from edge.openapi import webhook_schemas as shapes
from engine.contracts.signature import secret_bytes
from engine.contracts.webhooks import ENDPOINTS_MAX
from engine.security.encryption import Vault
from ops.stack.embedded import EmbeddedRedis
from support.event_stand import ENDPOINTS, MERCHANT, OTHER, a_payment_id, an_edge, an_endpoint, ask, merchant_of, tell
from support.gateway import MASTER_KEY, Gateway


@pytest.fixture(scope="module")
def gateway(
    module_database: str, redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    with an_edge(module_database, redis_server, tmp_path_factory.mktemp("edge")) as running:
        yield running


@pytest.fixture
def endpoint(gateway: Gateway) -> str:
    return str(an_endpoint(gateway)["id"])


def path(endpoint: str, verb: str = "") -> str:
    return f"{ENDPOINTS}/{endpoint}" + (f"/{verb}" if verb else "")


def signing(gateway: Gateway, endpoint: str) -> list[tuple[str, str]]:
    """Scheme and role of all secrets of an endpoint."""
    return gateway.sql("SELECT scheme, role FROM webhook_secrets WHERE endpoint = %s ORDER BY scheme, role", endpoint)  # type: ignore[return-value]


def test_a_new_endpoint_has_what_was_asked_for_and_a_secret(gateway: Gateway) -> None:
    wanted = {
        "url": "http://127.0.0.1:9/whole?a=b",
        "events": ["payment.captured", "payment.refunded"],
        "ordered": True,
        "retry_schedule": [1, 60],
        "description": "the whole of it",
    }

    made = ask(gateway, "POST", ENDPOINTS, wanted)

    assert (made.status_code, made.headers["location"]) == (201, f"{ENDPOINTS}/{made.json()['id']}")
    assert made.json().items() >= {**wanted, "status": "enabled"}.items()
    assert len(secret_bytes(made.json()["secret"])) == 32
    shapes.WebhookEndpointWithSecret.model_validate_json(made.content)


def test_a_secret_is_shown_by_nothing_but_the_answer_that_made_it(gateway: Gateway) -> None:
    made = an_endpoint(gateway, ed25519=True)
    secret = made["secret"]

    one, many = ask(gateway, "GET", path(made["id"])), ask(gateway, "GET", f"{ENDPOINTS}?limit=100")
    changed = ask(gateway, "PATCH", path(made["id"]), {"description": "changed"})
    off = ask(gateway, "POST", path(made["id"], "disable"))
    stored = gateway.sql("SELECT sealed FROM webhook_secrets UNION ALL SELECT sealed FROM stored_answers")
    log = gateway.logs()

    for text in (one.text, many.text, changed.text, off.text, str(stored), log):
        assert secret not in text and "whsec_" not in text
    shapes.WebhookEndpoint.model_validate_json(one.content)
    shapes.WebhookEndpointList.model_validate_json(many.content)


def test_a_secret_can_be_brought_along_and_is_what_signs(gateway: Gateway) -> None:
    brought = "whsec_" + "QUJD" * 8

    made = an_endpoint(gateway, secret=brought)
    sealed = gateway.sql("SELECT sealed FROM webhook_secrets WHERE endpoint = %s", made["id"])[0][0]

    assert made["secret"] == brought
    assert Vault([base64.b64decode(MASTER_KEY)]).open_secret(sealed, made["id"], "v1") == b"ABC" * 8


def test_a_repeated_key_makes_one_endpoint_and_repeats_the_answer_secret_and_all(gateway: Gateway) -> None:
    body = {"url": "http://127.0.0.1:9/repeated"}

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(gateway, "POST", ENDPOINTS, body, Idempotency_Key="repeated"), range(8)))

    assert {(answer.status_code, answer.content) for answer in answers} == {(201, answers[0].content)}
    assert [answer.headers.get("idempotent-replayed") for answer in answers].count("true") == 7
    assert {answer.headers["location"] for answer in answers} == {answers[0].headers["location"]}


def test_a_key_with_another_body_is_refused_by_the_fields_that_differ(gateway: Gateway) -> None:
    body = {"url": "http://127.0.0.1:9/reused", "ordered": True}
    ask(gateway, "POST", ENDPOINTS, body, Idempotency_Key="reused")

    again = ask(gateway, "POST", ENDPOINTS, {**body, "ordered": False, "events": None}, Idempotency_Key="reused")

    assert (again.status_code, again.json()["code"]) == (422, "idempotency_key_reused")
    assert [error["pointer"] for error in again.json()["errors"]] == ["/ordered"]


def test_a_refused_request_leaves_its_key_unused(gateway: Gateway) -> None:
    refused = ask(gateway, "POST", ENDPOINTS, {"url": "nonsense"}, Idempotency_Key="tried twice")
    made = ask(gateway, "POST", ENDPOINTS, {"url": "http://127.0.0.1:9/better"}, Idempotency_Key="tried twice")

    assert (refused.status_code, made.status_code) == (422, 201)


def test_keys_of_two_merchants_are_two_keys(gateway: Gateway) -> None:
    body = {"url": "http://127.0.0.1:9/both"}

    made = [ask(gateway, "POST", ENDPOINTS, body, by=by, Idempotency_Key="shared") for by in (MERCHANT, OTHER)]

    assert [answer.status_code for answer in made] == [201, 201]
    assert made[0].json()["id"] != made[1].json()["id"]


@pytest.mark.parametrize("again", ["http://127.0.0.1:80/Twice?x", "HTTP://127.0.0.1/Twice?x"])
def test_one_url_is_registered_once(gateway: Gateway, again: str) -> None:
    first = ask(gateway, "POST", ENDPOINTS, {"url": "http://127.0.0.1/Twice?x"})
    known = first.json()["id"] if first.status_code == 201 else first.json()["errors"][0]["detail"]

    twice = ask(gateway, "POST", ENDPOINTS, {"url": again})
    elsewhere = ask(gateway, "PATCH", path(an_endpoint(gateway)["id"]), {"url": again})

    for refused in (twice, elsewhere):
        assert (refused.status_code, refused.json()["code"]) == (422, "validation_failed")
        assert refused.json()["errors"][0]["pointer"] == "/url"
        assert refused.json()["errors"][0]["detail"].split()[4].rstrip(":") in known


def test_the_url_of_a_deleted_endpoint_is_free_again(gateway: Gateway) -> None:
    body = {"url": "http://127.0.0.1:9/comes-back"}
    first = ask(gateway, "POST", ENDPOINTS, body).json()["id"]

    deleted = ask(gateway, "DELETE", path(first))
    second = ask(gateway, "POST", ENDPOINTS, body)

    assert (deleted.status_code, deleted.json()["status"]) == (200, "deleted")
    assert (second.status_code, second.json()["id"] != first) == (201, True)
    assert ask(gateway, "GET", path(first)).status_code == 404
    assert ask(gateway, "DELETE", path(first)).status_code == 404


def test_a_merchant_may_have_only_so_many(gateway: Gateway) -> None:
    merchant = merchant_of(gateway, OTHER)
    gateway.sql("DELETE FROM webhook_endpoints WHERE merchant = %s AND id LIKE 'filler%%'", merchant)
    had = gateway.sql("SELECT count(*) FROM webhook_endpoints WHERE merchant = %s", merchant)[0][0]
    for number in range(ENDPOINTS_MAX - had - 1):
        gateway.sql(
            "INSERT INTO webhook_endpoints (id, merchant, url) VALUES (%s, %s, %s)",
            f"filler{number}",
            merchant,
            f"http://filler/{number}",
        )

    with ThreadPoolExecutor(4) as pool:
        urls = [{"url": f"http://127.0.0.1:9/last-{number}"} for number in range(4)]
        answers = list(pool.map(lambda body: ask(gateway, "POST", ENDPOINTS, body, by=OTHER), urls))
    gateway.sql("DELETE FROM webhook_endpoints WHERE merchant = %s AND id LIKE 'filler%%'", merchant)

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"webhook_endpoint_limit"}


def test_a_list_is_paged_newest_first_without_those_of_payments(gateway: Gateway) -> None:
    made = [an_endpoint(gateway)["id"] for _ in range(3)]
    gateway.sql(
        "INSERT INTO webhook_endpoints (id, merchant, kind, url) VALUES (%s, %s, 'payment_url', 'http://pay')"
        " ON CONFLICT DO NOTHING",
        "whe_00000000000000000000000001",
        merchant_of(gateway),
    )

    first = ask(gateway, "GET", f"{ENDPOINTS}?limit=2").json()
    second = ask(gateway, "GET", f"{ENDPOINTS}?limit=1&cursor={first['next_cursor']}").json()

    assert [each["id"] for each in first["data"] + second["data"]] == made[::-1]
    assert first["has_more"] is True
    assert all(each["kind"] == "registered" for each in first["data"] + second["data"])


def test_a_change_changes_what_was_sent_and_nothing_else(gateway: Gateway) -> None:
    made = an_endpoint(gateway, events=["payment.captured"], retry_schedule=[1], description="before")

    changed = ask(gateway, "PATCH", path(made["id"]), {"events": None, "ordered": True})
    same = ask(gateway, "PATCH", path(made["id"]), {})

    moved = {"events": None, "ordered": True, "updated_at": changed.json()["updated_at"]}
    assert changed.json() == {name: value for name, value in made.items() if name != "secret"} | moved
    assert same.json() == changed.json() | {"updated_at": same.json()["updated_at"]}


def test_a_rotation_leaves_two_secrets_that_sign_and_shows_the_new_one(gateway: Gateway, endpoint: str) -> None:
    first = ask(gateway, "POST", path(endpoint, "rotate-secret"), {"overlap_s": 3600}, Idempotency_Key=f"r-{endpoint}")
    replay = ask(gateway, "POST", path(endpoint, "rotate-secret"), {"overlap_s": 3600}, Idempotency_Key=f"r-{endpoint}")
    overlapping = signing(gateway, endpoint)
    second = ask(gateway, "POST", path(endpoint, "rotate-secret"))
    after_second = signing(gateway, endpoint)
    cut = ask(gateway, "POST", path(endpoint, "rotate-secret"), {"overlap_s": 0})

    assert first.status_code == 200 and first.json()["previous_secret_expires_at"] is not None
    assert (replay.content, replay.headers["idempotent-replayed"]) == (first.content, "true")
    assert overlapping == after_second == [("v1", "current"), ("v1", "previous")]
    assert cut.json()["previous_secret_expires_at"] is None
    assert signing(gateway, endpoint) == [("v1", "current")]
    assert len({answer.json()["secret"] for answer in (first, second, cut)}) == 3


def test_ed25519_keys_are_public_to_everybody_and_rotate_too(gateway: Gateway) -> None:
    made = an_endpoint(gateway, ed25519=True)
    address = f"{gateway.edge}/.well-known/webhook-keys/{made['id']}"

    before = gateway.http.get(address)
    ask(gateway, "POST", path(made["id"], "rotate-secret"))
    after = gateway.http.get(address)
    off = ask(gateway, "PATCH", path(made["id"]), {"ed25519": False})
    gone = gateway.http.get(address)
    on = ask(gateway, "PATCH", path(made["id"]), {"ed25519": True})

    shapes.PublicKeyList.model_validate_json(before.content)
    assert [key["public_key"] for key in before.json()["data"]] == [made["public_key"]]
    assert [key["role"] for key in after.json()["data"]] == ["current", "previous"]
    assert after.json()["data"][1]["public_key"] == made["public_key"]
    assert (off.json()["public_key"], gone.status_code) == (None, 404)
    assert on.json()["public_key"].startswith("whpk_")
    assert signing(gateway, made["id"]) == [("v1", "current"), ("v1", "previous"), ("v1a", "current")]


def test_the_default_secret_is_shown_when_it_is_rotated(gateway: Gateway) -> None:
    before = ask(gateway, "GET", "/v1/webhook-secret", by=OTHER)
    first = ask(gateway, "POST", "/v1/webhook-secret/rotate", by=OTHER)
    brought = ask(gateway, "POST", "/v1/webhook-secret/rotate", {"secret": "whsec_" + "QUJD" * 8}, by=OTHER)
    after = ask(gateway, "GET", "/v1/webhook-secret", by=OTHER)

    assert before.json() == {"object": "webhook_secret", "created_at": None, "previous_secret_expires_at": None}
    assert (first.status_code, first.json()["secret"][:6]) == (200, "whsec_")
    assert brought.json()["secret"] == "whsec_" + "QUJD" * 8
    shapes.WebhookSecretShown.model_validate_json(brought.content)
    assert after.json()["previous_secret_expires_at"] is not None and "secret" not in after.json()


def test_an_endpoint_is_disabled_and_enabled(gateway: Gateway, endpoint: str) -> None:
    off = [ask(gateway, "POST", path(endpoint, "disable")) for _ in range(2)]
    on = ask(gateway, "POST", path(endpoint, "enable"), {})

    assert [answer.json()["status"] for answer in off] == ["disabled", "disabled"]
    assert (
        off[0].json()["disabled_reason"] == "merchant" and off[0].json()["disabled_at"] == off[1].json()["disabled_at"]
    )
    assert (on.json()["status"], on.json()["disabled_reason"], on.json()["failing_since"]) == ("enabled", None, None)


def test_a_switched_endpoint_is_told_to_dispatchers(gateway: Gateway, endpoint: str) -> None:
    with psycopg.connect(gateway.database, autocommit=True) as listener:
        listener.execute("LISTEN penstock_deliveries")
        ask(gateway, "POST", path(endpoint, "disable"))

        assert [notice.channel for notice in listener.notifies(timeout=5, stop_after=1)] == ["penstock_deliveries"]


def test_an_endpoint_of_payments_can_be_switched_and_not_changed(gateway: Gateway) -> None:
    derived = "whe_00000000000000000000000002"
    gateway.sql(
        "INSERT INTO webhook_endpoints (id, merchant, kind, url) VALUES (%s, %s, 'payment_url', 'http://pay2')"
        " ON CONFLICT DO NOTHING",
        derived,
        merchant_of(gateway),
    )

    refused = [
        ask(gateway, "PATCH", path(derived), {"ordered": True}),
        ask(gateway, "DELETE", path(derived)),
        ask(gateway, "POST", path(derived, "rotate-secret")),
    ]
    switched = [ask(gateway, "POST", path(derived, verb)) for verb in ("disable", "enable")]

    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(409, "webhook_endpoint_derived")}
    assert [answer.json()["status"] for answer in switched] == ["disabled", "enabled"]


def test_anothers_endpoint_is_not_found(gateway: Gateway, endpoint: str) -> None:
    payment = a_payment_id()
    with psycopg.connect(gateway.database) as connection:
        tell(connection, merchant_of(gateway), payment, 1)
        connection.execute(
            "INSERT INTO deliveries (payment, endpoint, sequence, due_at) VALUES (%s, %s, 1, now())",
            (payment, endpoint),
        )
    delivery = f"deliveries/dlv_{payment}_1"
    since = {"since": "2020-01-01T00:00:00Z"}

    calls = [
        ("GET", path(endpoint), None),
        ("PATCH", path(endpoint), {"ordered": True}),
        ("DELETE", path(endpoint), None),
        ("POST", path(endpoint, "rotate-secret"), None),
        ("POST", path(endpoint, "disable"), None),
        ("POST", path(endpoint, "enable"), None),
        ("GET", path(endpoint, "deliveries"), None),
        ("GET", path(endpoint, delivery), None),
        ("POST", path(endpoint, f"{delivery}/redeliver"), None),
        ("POST", path(endpoint, "redeliver"), since),
        ("POST", path(endpoint, "redeliver"), {**since, "dry_run": True}),
    ]
    for method, where, body in calls:
        answer = ask(gateway, method, where, body, by=OTHER)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), (method, where)
    assert ask(gateway, "GET", path(endpoint)).json()["status"] == "enabled"
