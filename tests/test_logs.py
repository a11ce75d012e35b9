"""All that a process says is a line: its own, of libraries, warnings, and what ends it. A request is one line."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from ops.assembly.settings import load_settings
from support.bank_harness import Bank, fresh_cards
from support.gateway import Gateway, a_gateway, a_payment, eventually

pytest_plugins = ["support.bank_fixtures"]

CONFIGURED = "import logging, sys\nfrom ops.assembly.logs import configure_logs\nconfigure_logs('info', {form!r})\n"
SAYINGS = {
    "our own": "import structlog\nstructlog.get_logger().info('ours', number=1)",
    "half a character": "import structlog\nstructlog.get_logger().info('ours', text='\\udce9', big=2**70, kind=int)",
    "a library": "logging.getLogger('aiohttp.client').warning('a %s', 'library')",
    "a library's traceback": "try: 1 / 0\nexcept ArithmeticError: logging.getLogger('psycopg').exception('no')",
    "a library's mistake": "logging.getLogger('redis').warning('%d', 'no number')",
    "a library in lines": "logging.getLogger('uvicorn.error').error('one\\ntwo\\n\\x1b[31mthree')",
    "a warning": "import warnings\nwarnings.warn('old', stacklevel=1)",
    "a finalizer": "class Broken:\n    def __del__(self):\n        1 / 0\nBroken()",
    "a thread": "import threading\nthread = threading.Thread(target=lambda: 1 / 0)\nthread.start()\nthread.join()",
    "a task": (
        "import asyncio, gc\nasync def failing():\n    1 / 0\n"
        "async def main():\n    asyncio.get_running_loop().create_task(failing())\n    await asyncio.sleep(0.01)\n"
        "    gc.collect()\nasyncio.run(main())"
    ),
    "a callback": (
        "import asyncio\nasync def main():\n    asyncio.get_running_loop().call_soon(lambda: 1 / 0)\n"
        "    await asyncio.sleep(0.01)\nasyncio.run(main())"
    ),
    "a crash": "number = '4111111111111111'\nraise RuntimeError('the end')",
    "a crash in a group": "raise ExceptionGroup('both', [ValueError('one'), OSError('two')])",
    "a child": (
        "import multiprocessing\nfrom ops.assembly.logs import crash_logged\n"
        "def serve():\n    with crash_logged():\n        1 / 0\n"
        "child = multiprocessing.get_context('fork').Process(target=serve)\nchild.start()\nchild.join()\n"
        "assert child.exitcode == 1"
    ),
}


def said(program: str, form: str) -> str:
    """What a process says on stderr."""
    text = CONFIGURED.format(form=form) + program
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize("program", SAYINGS.values(), ids=SAYINGS)
def test_all_that_a_process_says_is_json(program: str) -> None:
    lines = [orjson.loads(line) for line in said(program, "json").encode().splitlines()]

    assert lines
    assert all({"event", "level", "timestamp"} <= line.keys() for line in lines), lines
    assert "4111111111111111" not in str(lines), "the locals of a frame may hold a card"


@pytest.mark.parametrize("program", SAYINGS.values(), ids=SAYINGS)
def test_all_that_a_process_says_is_plain_text_for_eyes(program: str) -> None:
    text = said(program, "console")

    assert "{" not in text.splitlines()[0]
    assert text[:4].isdigit(), "a moment comes first"
    assert "4111111111111111" not in text.replace("number = '4111111111111111'", "")


@pytest.fixture(scope="module")
def gateway(
    module_database: str, module_redis_url: str, calm_bank: Bank, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    folder, bank_url = tmp_path_factory.mktemp("logs"), f"http://127.0.0.1:{calm_bank.port}"
    with a_gateway(module_database, module_redis_url, bank_url, folder) as running:
        yield running


def lines_of(gateway: Gateway, role: str) -> list[dict[str, Any]]:
    (running,) = (running for running in gateway.processes if running.role == role)
    return [orjson.loads(line) for line in running.log.read_bytes().splitlines()]


def requests(gateway: Gateway, request_id: str) -> list[dict[str, Any]]:
    """The lines of an edge about the requests with this id, once there is one."""

    def found() -> list[dict[str, Any]]:
        lines = lines_of(gateway, "edge")
        return [line for line in lines if line["event"] == "request" and line["request_id"] == request_id]

    return list(eventually(found, "it is logged"))


def ask(gateway: Gateway, request_id: str, method: str, path: str, **options: Any) -> int:
    headers = {"X-Request-Id": request_id, **options.pop("headers", {})}
    return gateway.request(method, path, headers=headers, **options).status_code


def test_a_request_is_one_line_with_what_it_was_and_what_came_of_it(gateway: Gateway) -> None:
    card, key = next(fresh_cards), "the-key-of-a-request"
    headers = {"Idempotency-Key": key, "Prefer": "wait=10"}
    for number in range(2):
        assert ask(gateway, f"mine-{number}", "POST", "/v1/payments", headers=headers, json=a_payment(card)) == 201

    [first], [again] = requests(gateway, "mine-0"), requests(gateway, "mine-1")

    assert first | {"ms": 0, "timestamp": ""} == {
        "event": "request", "level": "info", "timestamp": "", "request_id": "mine-0", "method": "POST",
        "route": "/v1/payments", "status": 201, "ms": 0, "merchant": "mer_local",
    }  # fmt: skip
    assert first["ms"] > 0
    assert again["replayed"] is True
    log = b"".join(running.log.read_bytes() for running in gateway.processes)
    assert not any(secret.encode() in log for secret in (card, key, "sk_local_merchant"))


def test_a_clients_request_id_is_in_the_workers_line_of_what_it_asked_for(gateway: Gateway) -> None:
    headers = {"Idempotency-Key": "followed", "Prefer": "wait=10"}
    ask(gateway, "followed-to-the-bank", "POST", "/v1/payments", headers=headers, json=a_payment(next(fresh_cards)))

    settled = [line for line in lines_of(gateway, "worker") if line["event"] == "operation_completed"]

    assert [line["outcome"] for line in settled if line["request_id"] == "followed-to-the-bank"] == ["succeeded"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "route"),
    [
        ("GET", "/v1/payments/pay_nobody", {}, 404, "/v1/payments/{payment}"),
        ("GET", "/v1/payments", {"X-API-Key": "sk_wrong"}, 401, "/v1/payments"),
        ("DELETE", "/v1/payments", {}, 405, "/v1/payments"),
        ("POST", "/v1/payments", {}, 400, "/v1/payments"),
        ("GET", "/nowhere/4111111111111111", {}, 404, "(none)"),
    ],
)
def test_what_is_refused_is_one_line_too(
    gateway: Gateway, method: str, path: str, headers: dict[str, str], status: int, route: str
) -> None:
    name = f"refused-{method}-{path.count('/')}-{status}"

    assert ask(gateway, name, method, path, headers=headers) == status

    [line] = requests(gateway, name)
    assert (line["method"], line["route"], line["status"]) == (method, route, status)


@pytest.mark.parametrize("number", ["4111111111111111", "4111-1111-1111-1111", "order:4111111111111111"])
def test_a_request_id_that_may_be_a_card_number_is_not_logged(gateway: Gateway, number: str) -> None:
    ask(gateway, number, "GET", "/v1/payments/pay_nobody", headers={"X-API-Key": "sk_wrong"})
    ask(gateway, "176427332712345", "GET", "/v1/payments", headers={"X-API-Key": "sk_wrong"})

    assert requests(gateway, "176427332712345"), "other numbers are"
    assert not {"4111111111111111", number} & {line.get("request_id") for line in lines_of(gateway, "edge")}


def test_machines_that_only_look_are_not_logged(gateway: Gateway) -> None:
    for path in ("/livez", "/readyz", "/metrics"):
        assert ask(gateway, f"looks-{path}", "GET", path) == 200
    ask(gateway, "afterwards", "GET", "/v1/payments")
    requests(gateway, "afterwards")

    routes = Counter(line["route"] for line in lines_of(gateway, "edge") if line["event"] == "request")
    assert not {"/livez", "/readyz", "/metrics"} & set(routes)


def test_requests_are_not_logged_where_a_setting_says_so(gateway: Gateway, tmp_path: Path) -> None:
    quiet = Gateway(database=gateway.database, redis_url=gateway.redis_url, bank_url=gateway.bank_url, folder=tmp_path)
    try:
        quiet.start("edge", PENSTOCK_REQUEST_LOG="false")
        assert quiet.request("GET", "/v1/payments?order_id=quiet").status_code == 200
        assert [line for line in lines_of(quiet, "edge") if line["event"] == "request"] == []
    finally:
        quiet.close()
    keys = {"PENSTOCK_MASTER_KEY": "bW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW1tbW0=",
            "PENSTOCK_FINGERPRINT_KEY": "ZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmY="}  # fmt: skip
    assert load_settings(keys).request_log is True
