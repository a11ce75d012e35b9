"""Fixtures of the bank tests: one Postgres and one calm bank for the whole session."""

from collections.abc import Iterator

import pytest

from support.bank_harness import Bank, a_bank, a_postgres


@pytest.fixture(scope="session")
def bank_postgres() -> Iterator[str]:
    """The DSN of a server of our own, without a database name."""
    with a_postgres() as dsn:
        yield dsn


@pytest.fixture(scope="session")
def calm_bank(bank_postgres: str) -> Iterator[Bank]:
    """One bank for all tests that leave it as they found it, with the control API on."""
    with a_bank(bank_postgres, PENSTOCK_BANK_CONTROL="1") as bank:
        yield bank


@pytest.fixture
def bank(calm_bank: Bank) -> Iterator[Bank]:
    """The shared bank, without faults afterwards."""
    yield calm_bank
    calm_bank.http.delete("/control/faults")
