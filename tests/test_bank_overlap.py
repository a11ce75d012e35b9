"""The mock bank tells in its log when one key is under way twice: who asks serially never reads that there."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

from bank.simulator.overlap import EVENT
from support.bank_harness import a_bank

pytest_plugins = ["support.bank_fixtures"]
SLOW = {"MIN_LATENCY_MS": "300", "MAX_LATENCY_MS": "300"}


def test_a_key_under_way_twice_is_named_and_one_that_is_repeated_or_scoped_to_another_path_is_not(
    bank_postgres: str,
) -> None:
    serial, both, apart = (uuid4().hex for _ in range(3))
    with a_bank(bank_postgres, "overlap") as seeded:
        auth = seeded.authorized()
    with a_bank(bank_postgres, "overlap", **SLOW) as bank, ThreadPoolExecutor(8) as threads:
        for _ in range(2):
            bank.authorize(serial)
        void = threads.submit(bank.post, "voids", {"authorization_id": auth}, apart)
        other = threads.submit(bank.authorize, apart)
        assert (void.result().status_code, other.result().status_code) == (200, 200)
        twice = [threads.submit(bank.authorize, both) for _ in range(2)]
        assert {each.result().status_code for each in twice} == {200}
        assert bank.process.stdout is not None

        line = json.loads(bank.process.stdout.readline())

    assert (line["event"], line["key"], line["path"]) == (EVENT, both, "/api/v1/authorizations")
    assert line["level"] == "warning"
