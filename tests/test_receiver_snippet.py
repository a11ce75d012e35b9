"""The receiver in docs/webhooks.md does what the page says: it is cut out and run."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from standardwebhooks import Webhook

from engine.contracts.signature import secret_text, signatures
from ops.stack.address import any_free_port
from support.gateway import eventually

PAGE = Path(__file__).parent.parent / "docs" / "webhooks.md"
NEW, OLD, WRONG = (secret_text(bytes([number]) * 32) for number in (1, 2, 3))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Where it listens, and its database."""
    folder, port = tmp_path_factory.mktemp("shop"), any_free_port()
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 1
    (folder / "receiver.py").write_text(blocks[0])
    environ = {"WEBHOOK_SECRETS": f"{NEW} {OLD}", "PORT": str(port), "SHOP_DATABASE": str(folder / "shop.db")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "receiver.py"], cwd=folder, env={**os.environ, **environ}, stdout=log, stderr=log
        )
    try:
        eventually(lambda: _listens(port), "it listens")
        yield f"http://127.0.0.1:{port}/", folder / "shop.db"
    finally:
        process.kill()
        process.wait(10)


def _listens(port: int) -> bool:
    try:
        httpx.post(f"http://127.0.0.1:{port}/")
    except httpx.TransportError:
        return False
    return True


def an_event(payment: str, sequence: int, status: str) -> bytes:
    data = {"object": "payment", "id": payment, "status": status}
    return json.dumps({"type": f"payment.{status}", "data": data, "sequence": sequence}).encode()


def send(url: str, id: str, body: bytes, secret: str = NEW, *, age: timedelta = timedelta()) -> int:
    """Signed by the published library. The status."""
    at = datetime.now(UTC) - age
    signature = Webhook(secret).sign(id, at, body.decode())
    headers = {"webhook-id": id, "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}
    return httpx.post(url, content=body, headers=headers).status_code


def status_of(database: Path, payment: str) -> list[tuple[str, int]]:
    shop = sqlite3.connect(database)
    try:
        return shop.execute("SELECT status, sequence FROM payments WHERE id = ?", [payment]).fetchall()
    finally:
        shop.close()


def test_both_secrets_of_a_rotation_are_taken_and_no_other(shop: tuple[str, Path]) -> None:
    url, database = shop

    taken = [send(url, f"evt_{secret}", an_event("pay_rotated", 1, "created"), secret) for secret in (NEW, OLD)]
    refused = send(url, "evt_wrong", an_event("pay_rotated", 2, "authorized"), WRONG)

    assert (taken, refused) == ([204, 204], 401)
    assert status_of(database, "pay_rotated") == [("created", 1)]


def test_what_we_sign_is_taken(shop: tuple[str, Path]) -> None:
    body, now_s = an_event("pay_ours", 1, "created"), int(time.time())
    signed = signatures("evt_ours", now_s, body, [b"\x09" * 32, b"\x02" * 32], [b"\x07" * 32])
    headers = {"webhook-id": "evt_ours", "webhook-timestamp": str(now_s), "webhook-signature": signed}

    assert httpx.post(shop[0], content=body, headers=headers).status_code == 204


@pytest.mark.parametrize("age_s", [-400, 400])
def test_an_old_signature_is_refused(shop: tuple[str, Path], age_s: int) -> None:
    assert send(shop[0], "evt_old", an_event("pay_old", 1, "created"), age=timedelta(seconds=age_s)) == 401


def test_an_altered_body_is_refused(shop: tuple[str, Path]) -> None:
    at = datetime.now(UTC)
    signature = Webhook(NEW).sign("evt_altered", at, an_event("pay_altered", 1, "declined").decode())
    headers = {"webhook-id": "evt_altered", "webhook-timestamp": str(int(at.timestamp()))}

    answer = httpx.post(
        shop[0],
        content=an_event("pay_altered", 1, "captured"),
        headers={**headers, "webhook-signature": signature},
    )

    assert answer.status_code == 401


def test_a_repeated_id_is_acknowledged_and_changes_nothing(shop: tuple[str, Path]) -> None:
    url, database = shop

    with ThreadPoolExecutor(8) as pool:
        body = an_event("pay_twice", 1, "authorized")
        statuses = list(pool.map(lambda _: send(url, "evt_twice", body), range(8)))
    again = send(url, "evt_twice", an_event("pay_twice", 9, "refunded"))

    assert {*statuses, again} == {204}
    assert status_of(database, "pay_twice") == [("authorized", 1)]


def test_the_higher_sequence_wins_whatever_comes_first(shop: tuple[str, Path]) -> None:
    url, database = shop

    for sequence, status in ((3, "captured"), (1, "created"), (2, "authorized")):
        send(url, f"evt_order_{sequence}", an_event("pay_order", sequence, status))

    assert status_of(database, "pay_order") == [("captured", 3)]
