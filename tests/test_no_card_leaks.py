"""A card in hand shows nowhere: not in the log of an exception that met it, not in any rendering of it (I9)."""

from __future__ import annotations

import hashlib
import traceback
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.pretty import pretty_repr
from structlog.tracebacks import ExceptionDictTransformer

from engine.domain.payment import Card
from support.ficmart_asks import CVV, PAN, an_ask
from support.gateway import Gateway, a_gateway, eventually

# What somebody would hash who tries card numbers one by one, as our fingerprints have it too.
GUESSES = (PAN.encode(), f'"{PAN}"'.encode(), f'["payment_method/number","{PAN}"]'.encode(), CVV.encode())
HASHES = (
    hashlib.md5,
    hashlib.sha1,
    hashlib.sha256,
    hashlib.sha512,
    hashlib.blake2b,
    lambda text: hashlib.blake2b(text, digest_size=12),
)


@pytest.mark.parametrize("point", ["before-bank", "after-bank"])
def test_an_exception_beside_the_bank_call_is_logged_without_the_card(
    point: str, database: str, redis_url: str, tmp_path: Path
) -> None:
    method = {"type": "card", "number": PAN, "cvv": CVV, "expiry_month": 12, "expiry_year": 2030}
    with a_gateway(database, redis_url, "http://127.0.0.1:1", tmp_path, workers=0, PENSTOCK_CONNECTOR="instant") as gw:
        worker = gw.start("worker", PENSTOCK_FAILPOINTS=f"{point}:raise")

        payment = gw.pay(PAN, payment_method=method).json()["id"]
        eventually(lambda: gw.get(payment)["status"] == "authorized", "it is authorized in the end", 20)
        gw.settled()
        logged = worker.log.read_text()
        edge = gw.processes[0].log.read_text()

    assert "FailpointReached" in logged, "or nothing is tested here"
    for text in (logged, edge):
        assert PAN not in text
        assert "cvv" not in text.lower()


def test_no_store_keeps_a_card_or_what_it_could_be_found_from(database: str, redis_url: str, tmp_path: Path) -> None:
    method = {"type": "card", "number": PAN, "cvv": CVV, "expiry_month": 12, "expiry_year": 2030}
    with a_gateway(database, redis_url, "http://127.0.0.1:1", tmp_path, workers=0, PENSTOCK_CONNECTOR="instant") as gw:
        payment = gw.pay(PAN, payment_method=method).json()["id"]
        accepted = everything_in_redis(gw)
        gw.start("worker")
        eventually(lambda: gw.get(payment)["status"] == "authorized", "it is authorized", 20)
        gw.post(f"/v1/payments/{payment}/capture", wait=10)
        gw.settled()
        kept = [everything_in_redis(gw), everything_in_the_ledger(gw)]
    hashed = [name(text).hexdigest() for name in HASHES for text in GUESSES]

    assert "sealed" in accepted and "fingerprint" in kept[0] and "fingerprint" in kept[1], "or nothing is tested here"
    for text in (accepted, *kept):
        assert PAN not in text and b64encode(PAN.encode()).decode().rstrip("=") not in text
        assert "cvv" not in text.lower()
        assert not [digest for digest in hashed if digest[:24] in text]


def everything_in_redis(gateway: Gateway) -> str:
    """All keys with what is in them."""
    redis, read = gateway.redis, []
    for key in redis.scan_iter():
        kind = redis.type(key)
        whole = {
            b"string": lambda key: redis.get(key),
            b"hash": lambda key: redis.hgetall(key),
            b"stream": lambda key: redis.xrange(key),
            b"zset": lambda key: redis.zrange(key, 0, -1),
        }[kind]
        read.append(f"{key!r}: {whole(key)!r}")
    return "\n".join(read)


def everything_in_the_ledger(gateway: Gateway) -> str:
    """All rows of all tables, with bytes as the text they are."""
    tables = gateway.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    rows = [str(gateway.sql(f"SELECT to_json(t.*)::text FROM {table} t")) for (table,) in tables]
    bodies = gateway.sql("SELECT convert_from(response_body, 'UTF8') FROM operations WHERE response_body IS NOT NULL")
    return "\n".join([*rows, str(bodies)])


def test_no_rendering_of_a_card_shows_it() -> None:
    card = Card(number=PAN, cvv=CVV, expiry_month=12, expiry_year=2030)
    ask = an_ask()

    shown = [repr(card), str(card), f"{card}", pretty_repr(card), repr(ask), pretty_repr(ask), pretty_repr([ask])]

    for text in shown:
        assert PAN not in text and CVV not in text


def test_a_log_that_shows_locals_all_the_same_shows_no_card() -> None:
    def worker_with_a_card(ask: object, card: Card) -> None:
        raise RuntimeError(f"at {datetime.now(UTC)}")

    try:
        worker_with_a_card(an_ask(), Card(number=PAN, cvv=CVV, expiry_month=12, expiry_year=2030))
    except RuntimeError as error:
        frames = repr(
            ExceptionDictTransformer(show_locals=True, locals_max_string=10_000)(
                (type(error), error, error.__traceback__)
            )
        )
        plain = "".join(traceback.format_exception(error))

    assert "worker_with_a_card" in frames
    for text in (frames, plain):
        assert PAN not in text and f"cvv='{CVV}'" not in text
