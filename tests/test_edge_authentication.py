"""Who may call: keys, scopes, revocation, and what happens while Postgres is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from edge.server.authentication import UNKNOWN_MAX, UNKNOWN_S, WAITING_MAX, Authenticator
from engine.errors import Rejected, Unavailable
from support.edge_stand import DISABLED, MERCHANT, OPERATOR, OTHER, Stand, add_key, running_edge, running_postgres

NOWHERE = "host=127.0.0.1 port=1 connect_timeout=1"
PAYMENT = "/v1/payments/pay_4DVNQPMZBZFG0VHZJX492ZPG4J"
HOOK = "/v1/webhook-endpoints/whe_4DVNQPMZBZFG0VHZJX492ZPG4J"


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with running_postgres() as dsn:
        yield dsn


@pytest.fixture(scope="module")
def running(dsn: str) -> Iterator[Stand]:
    with running_edge(dsn) as stand:
        yield stand


@pytest.fixture
def edge(running: Stand) -> Stand:
    running.engine.forget()
    return running


GUARDED = [
    ("POST", "/v1/payments"),
    ("GET", "/v1/payments?order_id=a"),
    ("GET", PAYMENT),
    ("POST", f"{PAYMENT}/capture"),
    ("POST", f"{PAYMENT}/void"),
    ("POST", f"{PAYMENT}/refund"),
    ("GET", f"{PAYMENT}/shippable"),
    ("GET", "/v1/operations/op_4DVNQPMZBZFG0VHZJX492ZPG4J"),
    ("GET", "/v1/operations?idempotency_key=a"),
    ("GET", "/v1/events"),
    ("GET", f"{PAYMENT}/deliveries"),
    ("POST", "/v1/webhook-endpoints"),
    ("GET", "/v1/webhook-endpoints"),
    ("GET", HOOK),
    ("PATCH", HOOK),
    ("DELETE", HOOK),
    ("POST", f"{HOOK}/rotate-secret"),
    ("POST", f"{HOOK}/disable"),
    ("POST", f"{HOOK}/enable"),
    ("POST", f"{HOOK}/redeliver"),
    ("GET", f"{HOOK}/deliveries"),
    ("GET", f"{HOOK}/deliveries/dlv_pay_4DVNQPMZBZFG0VHZJX492ZPG4J_1"),
    ("POST", f"{HOOK}/deliveries/dlv_pay_4DVNQPMZBZFG0VHZJX492ZPG4J_1/redeliver"),
    ("GET", "/v1/webhook-secret"),
    ("POST", "/v1/webhook-secret/rotate"),
]

# fmt: off
KEYS = [
    # what                      headers                               status  code
    ("none",                    {},                                   401, "api_key_missing"),
    ("an empty one",            {"X-API-Key": ""},                    401, "api_key_missing"),
    ("a wrong one",             {"X-API-Key": "sk_wrong"},            401, "api_key_invalid"),
    ("one of another form",     {"X-API-Key": "secret"},              401, "api_key_invalid"),
    ("a very long one",         {"X-API-Key": "sk_" + "x" * 5000},    401, "api_key_invalid"),
    ("one beyond ASCII",        {"X-API-Key": "sk_ü".encode()},       401, "api_key_invalid"),
    ("a key and more",          {"X-API-Key": f"{MERCHANT}, x"},      401, "api_key_invalid"),
    ("a disabled merchant's",   {"X-API-Key": DISABLED},              403, "merchant_disabled"),
    ("an operator's",           {"X-API-Key": OPERATOR},              403, "scope_missing"),
]
# fmt: on


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize(("headers", "status", "code"), [row[1:] for row in KEYS], ids=[row[0] for row in KEYS])
def test_a_call_without_a_fitting_key_is_refused_before_anything_else(
    edge: Stand, method: str, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    answer = edge.client.request(method, path, headers=headers, content=b"not even JSON")

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert edge.engine.asked == []


@pytest.mark.parametrize(("secret", "merchant"), [(MERCHANT, "m_1"), (OTHER, "m_2")])
def test_the_engine_is_asked_in_the_name_of_the_keys_merchant(edge: Stand, secret: str, merchant: str) -> None:
    assert edge.post(headers={"X-API-Key": secret}).status_code == 202

    assert edge.engine.asked[0][1].merchant == merchant  # type: ignore[attr-defined]


def test_a_merchant_does_not_see_anothers_payment(edge: Stand) -> None:
    location = edge.post().headers["location"]

    assert edge.get(location).status_code == 200
    assert edge.get(location, headers={"X-API-Key": OTHER}).status_code == 404


def test_a_key_made_after_the_start_works_at_once(edge: Stand) -> None:
    add_key(edge.dsn, "sk_made_later")

    assert edge.post(headers={"X-API-Key": "sk_made_later"}).status_code == 202


def test_a_wrong_key_is_never_shown_again(edge: Stand) -> None:
    answer = edge.post(headers={"X-API-Key": "sk_wrong_but_secret"})

    assert (answer.status_code, answer.json()["code"]) == (401, "api_key_invalid")
    assert "wrong_but_secret" not in answer.text


def test_an_operators_key_of_no_merchant_does_what_operators_do_and_nothing_else(edge: Stand) -> None:
    add_key(edge.dsn, "ok_of_nobody", None, "operator")
    headers = {"X-API-Key": "ok_of_nobody"}

    done = edge.post("/v1/dead-letters/dl_1-1-1/drop", {"reason": "a test"}, headers=headers)
    listed = edge.get("/v1/dead-letters", headers=headers)
    refused = [edge.post(headers=headers), edge.get("/v1/payments?order_id=1", headers=headers)]

    assert done.status_code < 300 and listed.status_code == 200
    asked = next(each[1] for each in edge.engine.asked if each[0] == "drop")
    assert (asked.actor, asked.merchant) == ("key_ok_of_nobody", "")  # type: ignore[attr-defined]
    assert [(each.status_code, each.json()["code"]) for each in refused] == [(403, "scope_missing")] * 2
    assert all("merchant's key" in each.json()["detail"] for each in refused)


def used_at(dsn: str, secret: str) -> datetime | None:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT used_at FROM api_keys WHERE id = %s", (f"key_{secret}",)).fetchone()
    assert row is not None
    used: datetime | None = row[0]
    return used


def test_the_ledger_learns_to_the_minute_when_a_key_was_used(dsn: str) -> None:
    add_key(dsn, "sk_in_use")
    add_key(dsn, "sk_idle")

    async def scenario(ring: Authenticator) -> None:
        await ring.run_once()
        await ring.run_once()
        assert used_at(dsn, "sk_in_use") is None
        await ring.identify(b"sk_in_use")
        await ring.run_once()
        first = used_at(dsn, "sk_in_use")
        await ring.identify(b"sk_in_use")
        await ring.run_once()
        assert first is not None and used_at(dsn, "sk_in_use") == first, "once a minute is enough"
        with psycopg.connect(dsn) as connection:
            connection.execute("UPDATE api_keys SET used_at = '2020-01-01' WHERE id = 'key_sk_in_use'")
        await ring.identify(b"sk_in_use")
        await ring.run_once()
        last = used_at(dsn, "sk_in_use")
        assert last is not None and last >= first
        assert used_at(dsn, "sk_idle") is None

    on_ring(dsn, scenario)


def test_keys_stay_fresh_where_their_use_cannot_be_kept_and_it_is_told_later(dsn: str) -> None:
    add_key(dsn, "sk_on_a_standby")
    add_key(dsn, "sk_revoked_there")

    def refuse(words: str) -> None:
        with psycopg.connect(dsn) as connection:
            connection.execute(words.encode())

    async def scenario(ring: Authenticator) -> None:
        await ring.identify(b"sk_on_a_standby")
        await ring.identify(b"sk_revoked_there")
        refuse("ALTER TABLE api_keys ADD CONSTRAINT none_is_used CHECK (used_at IS NULL) NOT VALID")
        refuse("UPDATE api_keys SET used_at = NULL, revoked_at = now() WHERE id = 'key_sk_revoked_there'")
        assert await ring.run_once()
        assert not await known(ring, b"sk_revoked_there")
        assert used_at(dsn, "sk_on_a_standby") is None
        refuse("ALTER TABLE api_keys DROP CONSTRAINT none_is_used")
        await ring.run_once()
        assert used_at(dsn, "sk_on_a_standby") is not None

    on_ring(dsn, scenario)


def test_a_merchant_that_is_disabled_and_enabled_is_refused_and_served_with_the_next_refresh(dsn: str) -> None:
    add_key(dsn, "sk_switched", "m_2")

    def switch(status: str) -> None:
        with psycopg.connect(dsn) as connection:
            connection.execute("UPDATE merchants SET status = %s WHERE id = 'm_2'", (status,))

    async def scenario(ring: Authenticator) -> None:
        seen = []
        for status in ("active", "disabled", "active"):
            switch(status)
            await ring.run_once()
            seen.append((await ring.identify(b"sk_switched")).disabled)
        assert seen == [False, True, False]

    on_ring(dsn, scenario)


def test_a_key_that_ended_is_no_key(dsn: str) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    add_key(dsn, "sk_expired", expires_at=yesterday)
    add_key(dsn, "sk_revoked", revoked_at=yesterday)

    async def scenario(ring: Authenticator) -> None:
        await ring.run_once()
        for secret in (b"sk_expired", b"sk_revoked"):
            with pytest.raises(Rejected, match="api_key_invalid"):
                await ring.identify(secret)

    on_ring(dsn, scenario)


def test_a_held_key_ends_at_its_moment_without_a_refresh(dsn: str) -> None:
    now = datetime.now(UTC)
    add_key(dsn, "sk_rotated", revoked_at=now + timedelta(hours=1))
    clock = Clock(now.timestamp())

    async def scenario(ring: Authenticator) -> None:
        await ring.run_once()
        assert (await ring.identify(b"sk_rotated")).merchant == "m_1"
        clock.now += 3601
        with pytest.raises(Rejected, match="api_key_invalid"):
            await ring.identify(b"sk_rotated")

    on_ring(dsn, scenario, clock)


def test_a_revoked_key_is_gone_with_the_next_refresh(dsn: str) -> None:
    add_key(dsn, "sk_leaked")

    async def scenario(ring: Authenticator) -> None:
        await ring.run_once()
        assert (await ring.identify(b"sk_leaked")).merchant == "m_1"
        with psycopg.connect(dsn) as connection:
            connection.execute("UPDATE api_keys SET revoked_at = now() WHERE id = 'key_sk_leaked'")
        async with asyncio.timeout(20):
            refreshing = asyncio.create_task(ring.run(cache_s=0.01))
            while await known(ring, b"sk_leaked"):  # noqa: ASYNC110 (a ring tells nobody that it was refreshed)
                await asyncio.sleep(0.01)
            refreshing.cancel()
        with pytest.raises(Rejected, match="api_key_invalid"):
            await ring.identify(b"sk_leaked")

    on_ring(dsn, scenario)


def test_a_revoked_key_is_soon_gone_although_all_connections_were_cut_off(dsn: str) -> None:
    add_key(dsn, "sk_cut_off")
    named = {"application_name": "cut off"}
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cut off'"

    async def scenario() -> float:
        async with AsyncConnectionPool(dsn, open=False, min_size=4, max_size=4, kwargs=named) as pool:
            await pool.wait()
            ring, loop = Authenticator(pool), asyncio.get_running_loop()
            await ring.identify(b"sk_cut_off")
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("UPDATE api_keys SET revoked_at = now() WHERE id = 'key_sk_cut_off'")
                connection.execute(cut)
            began, refreshing = loop.time(), asyncio.create_task(ring.run(cache_s=2))
            while await known(ring, b"sk_cut_off"):  # noqa: ASYNC110 (a ring tells nobody that it was refreshed)
                await asyncio.sleep(0.01)
            refreshing.cancel()
            return loop.time() - began

    assert asyncio.run(scenario()) < 6  # a round, and four connections found dead; with a round for each it were ten


def test_while_postgres_is_away_held_keys_work_and_unknown_ones_get_503() -> None:
    async def scenario(ring: Authenticator) -> None:
        assert await ring.run_once()
        postgres.close()
        assert not await ring.run_once()

        assert (await ring.identify(MERCHANT.encode())).merchant == "m_1"
        with pytest.raises(Unavailable, match="store_unavailable"):
            await ring.identify(b"sk_unknown")

    with ExitStack() as postgres:
        on_ring(postgres.enter_context(running_postgres()), scenario)


def test_after_a_failure_nobody_waits_for_the_same_failure_again() -> None:
    async def scenario(ring: Authenticator) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        asked = [ring.identify(b"sk_%d" % number) for number in range(50)]
        found = await asyncio.gather(*asked, return_exceptions=True)

        assert all(isinstance(error, Unavailable) for error in found)
        assert loop.time() - started < 5  # one time-out, not fifty

    on_ring(NOWHERE, scenario)


def test_a_flood_of_wrong_keys_costs_few_queries_and_bounded_memory(dsn: str) -> None:
    async def scenario(ring: Authenticator) -> None:
        before = ring._pool.get_stats().get("requests_num", 0)
        for batch in range(UNKNOWN_MAX // 500 + 2):
            asked = [ring.identify(b"sk_flood_%d_%d" % (batch, number)) for number in range(500)]
            found = await asyncio.gather(*asked, return_exceptions=True)
            assert all(isinstance(error, Rejected) for error in found)

        assert ring._pool.get_stats().get("requests_num", 0) - before <= 2 * (UNKNOWN_MAX // 500 + 2)
        assert len(ring._unknown) == UNKNOWN_MAX

    on_ring(dsn, scenario)


def test_a_wrong_key_is_asked_once_and_again_only_after_a_while(dsn: str) -> None:
    clock = Clock(datetime.now(UTC).timestamp())

    async def scenario(ring: Authenticator) -> None:
        assert not await known(ring, b"sk_soon")
        add_key(dsn, "sk_soon")
        assert not await known(ring, b"sk_soon")
        clock.now += UNKNOWN_S + 1
        assert await known(ring, b"sk_soon")

    on_ring(dsn, scenario, clock)


def test_more_unknown_keys_than_fit_one_query_are_told_to_come_back(dsn: str) -> None:
    async def scenario(ring: Authenticator) -> None:
        asked = [ring.identify(b"sk_many_%d" % number) for number in range(WAITING_MAX + 10)]
        found = await asyncio.gather(*asked, return_exceptions=True)

        codes = {error.code for error in found if isinstance(error, Rejected | Unavailable)}
        assert codes - {"store_unavailable"} == {"api_key_invalid", "overloaded"}  # a slow machine has that, too

    on_ring(dsn, scenario)


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def on_ring(dsn: str, scenario: Callable[[Authenticator], Awaitable[None]], clock: Clock | None = None) -> None:
    """Run this against a ring over a pool of its own."""

    async def run() -> None:
        # The check is what production's pool does as well: a connection that died is replaced before it is used.
        check = AsyncConnectionPool.check_connection
        pool = AsyncConnectionPool(
            dsn, open=False, min_size=0, max_size=2, timeout=0.5, reconnect_timeout=0.1, check=check
        )
        async with pool:
            await scenario(Authenticator(pool, clock=clock) if clock else Authenticator(pool))

    asyncio.run(run())


async def known(ring: Authenticator, secret: bytes) -> bool:
    try:
        await ring.identify(secret)
    except Rejected:
        return False
    return True
