"""Clients that other people's generators make of the API's description: made without a warning, each pays."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from support.api_tools import Tools, run
from support.bank_harness import Bank, fresh_cards
from support.gateway import Gateway, a_gateway

pytest_plugins = ["support.bank_fixtures", "support.api_fixtures"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CLIENTS = Path(__file__).parent / "api_clients"
# What openapi-generator says of any document in OpenAPI 3.1: that it is new to it, and of types that may be null.
OF_ITSELF = re.compile(r"OpenAPI 3\.1 support is still in beta|Failed to get the schema name: null")


@pytest.fixture(scope="module")
def gateway(
    module_database: str, module_redis_url: str, calm_bank: Bank, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with a_gateway(module_database, module_redis_url, f"http://127.0.0.1:{calm_bank.port}", folder) as running:
        yield running


@pytest.fixture(scope="module")
def document(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the running edge serves, as a file."""
    file = tmp_path_factory.mktemp("described") / "openapi.json"
    file.write_bytes(gateway.request("GET", "/openapi.json").content)
    return file


@pytest.fixture
def older_document(gateway: Gateway, tmp_path: Path) -> Path:
    """The same in OpenAPI 3.0."""
    file = tmp_path / "openapi-3.0.json"
    file.write_bytes(gateway.request("GET", "/docs/openapi-3.0.json").content)
    return file


def assert_paid(gateway: Gateway, told: str, order: str) -> None:
    """What a client saw of its payment, in the last line that it printed, is what the gateway has."""
    seen: dict[str, Any] = json.loads(told.strip().splitlines()[-1])
    (payment,) = gateway.request("GET", f"/v1/payments?order_id={order}").json()["data"]

    assert (seen["payment"], seen["status"], seen["amount"]) == (payment["id"], "authorized", 5000)
    assert (seen["captured"], payment["status"], payment["amount_captured"]) == ("captured", "captured", 5000)
    assert seen["listed"] == [payment["id"]]
    assert (seen["problem"], seen["pointers"]) == ("validation_failed", ["/order_id"])


def test_openapi_python_client_makes_a_client_that_pays(
    gateway: Gateway, document: Path, api_tools: Tools, tmp_path: Path
) -> None:
    target, order = str(tmp_path / "gateway_client"), uuid4().hex
    options = ("--path", str(document), "--output-path", target, "--meta", "none", "--fail-on-warning")

    told = run(api_tools.command("openapi-python-client"), "generate", *options, folder=tmp_path)
    paid = run(
        *(str(api_tools.python), str(CLIENTS / "with_openapi_python_client.py"), gateway.edge, order),
        next(fresh_cards),
        folder=tmp_path,
        PYTHONPATH=str(tmp_path),
    )

    assert "arning" not in told
    assert_paid(gateway, paid, order)


def test_openapi_generator_finds_nothing_to_say_of_the_documents(
    document: Path, older_document: Path, api_tools: Tools, tmp_path: Path
) -> None:
    for file in (document, older_document):
        told = run(
            api_tools.command("openapi-generator-cli"), "validate", "-i", str(file), "--recommend", folder=tmp_path
        )

        assert "No validation issues detected." in told


def test_openapi_generator_makes_a_client_that_pays(
    gateway: Gateway, document: Path, api_tools: Tools, tmp_path: Path
) -> None:
    target, order = str(tmp_path / "generated"), uuid4().hex
    options = ("-i", str(document), "-g", "python", "-o", target, "--package-name", "gateway_client")

    told = run(api_tools.command("openapi-generator-cli"), "generate", *options, folder=tmp_path)
    paid = run(
        *(str(api_tools.python), str(CLIENTS / "with_openapi_generator.py"), gateway.edge, order, next(fresh_cards)),
        folder=tmp_path,
        PYTHONPATH=target,
    )

    warnings = [line for line in told.splitlines() if re.search(r"\b(WARN|ERROR)\b", line)]
    assert [line for line in warnings if not OF_ITSELF.search(line)] == []
    assert_paid(gateway, paid, order)


def test_openapi_generator_has_no_warning_for_the_document_in_openapi_3_0(
    older_document: Path, api_tools: Tools, tmp_path: Path
) -> None:
    options = ("-i", str(older_document), "-g", "java", "-o", str(tmp_path / "generated"))

    told = run(api_tools.command("openapi-generator-cli"), "generate", *options, folder=tmp_path)

    assert [line for line in told.splitlines() if re.search(r"\b(WARN|ERROR)\b", line)] == []
    assert list((tmp_path / "generated").rglob("PaymentsApi.java"))


def test_openapi_typescript_makes_types_that_a_paying_client_is_checked_against(
    gateway: Gateway, document: Path, api_tools: Tools, tmp_path: Path
) -> None:
    order = uuid4().hex
    (tmp_path / "node_modules").symlink_to(api_tools.node_modules)
    source = tmp_path / "pay.mts"
    source.write_text((CLIENTS / "with_openapi_typescript.mts").read_text())
    strict = ("--strict", "--exactOptionalPropertyTypes", "--noEmitOnError")
    plain = ("--target", "es2022", "--module", "nodenext", "--moduleResolution", "nodenext", "--skipLibCheck")

    told = run(api_tools.script("openapi-typescript"), str(document), "-o", "gateway.d.ts", folder=tmp_path)
    run(api_tools.script("tsc"), *strict, *plain, "pay.mts", folder=tmp_path)
    paid = run("node", "pay.mjs", gateway.edge, order, next(fresh_cards), folder=tmp_path)

    assert "warn" not in told.lower()
    assert_paid(gateway, paid, order)
