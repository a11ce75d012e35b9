"""`penstock status` of a deployment: what its stores show is told with what to do, and the exit code is a verdict."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.gateway import Gateway

CARD = "4111111111111111"


@pytest.fixture
def gateway(database: str, redis_url: str, tmp_path: Path) -> Iterator[Gateway]:
    """Without a process yet."""
    gateway = Gateway(
        database=database,
        redis_url=redis_url,
        bank_url="http://127.0.0.1:1",
        folder=tmp_path,
        environ={"PENSTOCK_CONNECTOR": "instant"},
    )
    yield gateway
    gateway.close()


def status(gateway: Gateway, *words: str, **environ: str | None) -> subprocess.CompletedProcess[str]:
    """Of the gateway's stores, asked from a folder where no stack runs."""
    given = {"PENSTOCK_DATABASE_URL": gateway.database, "PENSTOCK_REDIS_URL": gateway.redis_url, **environ}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    return subprocess.run(
        [sys.executable, "-m", "ops.cli.main", "status", *words],
        cwd=gateway.folder,
        env={**inherited, **{name: value for name, value in given.items() if value is not None}},
        capture_output=True,
        text=True,
        timeout=60,
    )


def findings(gateway: Gateway, **environ: str) -> dict[str, dict[str, Any]]:
    told = json.loads(status(gateway, "--json", **environ).stdout)
    return {each["name"]: each for each in told["findings"]}


@pytest.mark.slow
def test_a_deployment_that_is_well_is_told_to_be(gateway: Gateway) -> None:
    for role in ("edge", "worker", "dispatcher"):
        gateway.start(role)
    gateway.shared(1)

    told, document = status(gateway), status(gateway, "--json")

    assert (told.returncode, document.returncode) == (0, 0), told.stdout
    assert "edges" in told.stdout and "not done yet: 0 open, 0 in doubt, 0 review, 0 backlog" in told.stdout
    seen = json.loads(document.stdout)
    assert seen["well"] is True
    assert {kind: len(names) for kind, names in seen["processes"].items()} == {"dispatcher": 1, "edge": 1, "worker": 1}
    assert {each["verdict"] for each in seen["findings"]} == {"ok"}


@pytest.mark.slow
def test_what_is_wrong_is_named_with_what_to_do(gateway: Gateway) -> None:
    gateway.start("edge")
    gateway.pay(CARD)
    redis = gateway.redis
    before = redis.config_get("maxmemory-policy")["maxmemory-policy"]  # type: ignore[index]
    redis.config_set("maxmemory-policy", "allkeys-lru")
    redis.config_set("min-replicas-to-write", "1")
    try:
        told, seen = status(gateway), findings(gateway, PENSTOCK_PARTITIONS="8")
    finally:
        redis.config_set("min-replicas-to-write", "0")
        redis.config_set("maxmemory-policy", before)

    wrong = {name: each["detail"] for name, each in seen.items() if each["verdict"] == "wrong"}
    assert told.returncode == 1
    assert wrong["workers"] == "none runs: what is accepted waits"
    assert "set noeviction" in wrong["redis keeps"]
    assert "nothing can be accepted" in wrong["writes"]
    assert wrong["installation"] == "it has 16 partitions, and PENSTOCK_PARTITIONS is 8"
    assert wrong["partitions"].startswith("without a worker: 0, 1, 2")
    assert seen["dispatchers"]["verdict"] == "warning"


@pytest.mark.slow
def test_what_one_store_does_not_tell_the_other_still_does(gateway: Gateway) -> None:
    without_redis = findings(gateway, PENSTOCK_REDIS_URL="redis://:hunter2@127.0.0.1:1")
    without_postgres = findings(gateway, PENSTOCK_DATABASE_URL="postgresql://u:hunter2@127.0.0.1:1/x")

    assert (without_redis["redis"]["verdict"], without_redis["postgres"]["verdict"]) == ("wrong", "ok")
    assert (without_postgres["redis"]["verdict"], without_postgres["postgres"]["verdict"]) == ("ok", "wrong")
    assert "hunter2" not in json.dumps([without_redis, without_postgres])


@pytest.mark.slow
def test_secrets_and_urls_may_be_in_files_and_links_of_a_pod_do_not_disturb(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "redis").write_text(gateway.redis_url + "\n")
    (tmp_path / "ledger").write_text(gateway.database + "\n")

    told = status(
        gateway,
        "--json",
        PENSTOCK_REDIS_URL=None,
        PENSTOCK_DATABASE_URL=None,
        PENSTOCK_REDIS_URL_FILE=str(tmp_path / "redis"),
        PENSTOCK_DATABASE_URL_FILE=str(tmp_path / "ledger"),
        PENSTOCK_EDGE_PORT="tcp://10.0.0.1:8000",
        PENSTOCK_EDGE_SERVICE_HOST="10.0.0.1",
    )

    names = {each["name"] for each in json.loads(told.stdout)["findings"]}
    assert {"redis", "postgres", "partitions"} <= names


def test_one_store_alone_is_asked_for_the_other(gateway: Gateway) -> None:
    told = status(gateway, PENSTOCK_REDIS_URL=None)

    assert told.returncode == 1
    assert "PENSTOCK_DATABASE_URL names a store of a deployment: set PENSTOCK_REDIS_URL too" in told.stderr


def test_without_variables_or_with_a_folder_it_is_the_local_stack(gateway: Gateway) -> None:
    nothing = status(gateway, PENSTOCK_REDIS_URL=None, PENSTOCK_DATABASE_URL=None)
    folder = status(gateway, "--data-dir", str(gateway.folder))

    for told in (nothing, folder):
        assert told.returncode == 1
        assert "nothing is ready in" in told.stderr
