"""Every call keeps to its description: schemathesis makes sound and broken requests of it, and judges the answers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.api_tools import Tools, run
from support.gateway import Gateway, a_gateway

pytest_plugins = ["support.api_fixtures"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

HOOKS = Path(__file__).parent / "api_clients" / "schemathesis_hooks.py"
# More when somebody looks closer: API_EXAMPLES=200 make test ARGS=tests/test_api_schema.py
EXAMPLES = os.environ.get("API_EXAMPLES", "4")
# Of the statuses that schemathesis takes for an acceptance by itself, 402 is missing: a card that the bank declines.
CONFIGURATION = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "402", "403", "404", "409", "429", "503"]
"""


@pytest.fixture(scope="module")
def gateway(module_database: str, module_redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    environ = {"PENSTOCK_CONNECTOR": "instant", "PENSTOCK_WEBHOOK_INSIDE": "127.0.0.0/8"}
    with a_gateway(module_database, module_redis_url, "http://127.0.0.1:9", folder, **environ) as running:
        yield running


@pytest.fixture(scope="module")
def there(gateway: Gateway) -> dict[str, str]:
    """Ids of what exists, by the names of path parameters."""
    made = gateway.pay("4111111111111111", wait=10).json()
    endpoint = gateway.post("/v1/webhook-endpoints", {"url": "http://127.0.0.1:9/there"}).json()
    return {"payment": made["id"], "operation": made["operation"]["id"], "endpoint": endpoint["id"]}


@pytest.mark.parametrize(
    ("key", "which"),
    [
        ("sk_local_merchant", ("--exclude-tag", "operators")),
        ("ok_local_operator", ("--include-tag", "operators")),
    ],
    ids=["merchants", "operators"],
)
def test_every_call_does_what_its_description_says(
    gateway: Gateway, there: dict[str, str], api_tools: Tools, tmp_path: Path, key: str, which: tuple[str, ...]
) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
    options = ("--checks", "all", "--max-examples", EXAMPLES, "--continue-on-failure", "--no-color", "--seed", "1")

    told = run(
        *(api_tools.command("schemathesis"), "run", f"{gateway.edge}/openapi.json", "-H", f"X-API-Key: {key}"),
        *(*options, *which, "--phases", "examples,coverage,fuzzing"),
        folder=tmp_path,
        SCHEMATHESIS_HOOKS=str(HOOKS),
        THERE=json.dumps(there),
    )

    generated = re.search(r"(\d+) generated, (\d+) passed", told)  # a failure of one is a failure of the command
    assert generated and int(generated[1]) > 100, told[-6000:]
