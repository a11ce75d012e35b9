"""Rows are told to whom they belong: to one merchant, one bank, an act that was carried out; on a real Postgres."""

from __future__ import annotations

import asyncio

from psycopg_pool import AsyncConnectionPool

from engine.domain.payment import Verb
from engine.ledger.reader import LedgerReader
from support.ledger_stand import LedgerStand, a_ledger, an_authorized_payment

RESOLVE = """INSERT INTO audit (actor, act, subject, reason, partition, payment, operation, result, done_at)
             SELECT 'ada', %s, payment, 'a test', partition, payment, id, %s, now()
             FROM operations WHERE id = %s RETURNING 1"""


def test_operations_under_a_key_are_told_to_their_merchant_alone(database: str) -> None:
    async def story() -> list[int]:
        async with a_ledger(database) as stand, AsyncConnectionPool(database, open=False) as pool:
            await an_authorized_payment(stand, await stand.acquire())
            ledger_reader = LedgerReader(pool)
            return [
                len(await ledger_reader.operations_under(merchant, "first", 10, None)) for merchant in ("m_1", "m_2")
            ]

    assert asyncio.run(story()) == [1, 0]


def test_a_bank_s_id_is_held_by_a_receipt_of_that_bank_alone(database: str) -> None:
    async def story() -> list[str | None]:
        async with a_ledger(database) as stand:
            desk = await an_authorized_payment(stand, await stand.acquire())
            reference = desk.payment.bank.authorization_id or ""
            assert desk.payment.terms.connector == "ficmart_bank"
            holders = [await stand.ledger.holder(name, reference) for name in ("ficmart_bank", "another_bank")]
            return [holder and holder.replace(desk.payment.id, "it") for holder in holders]

    assert asyncio.run(story()) == ["payment it", None]


def test_an_id_is_by_hand_only_after_a_resolution_of_that_operation_was_carried_out(database: str) -> None:
    async def by_hand(stand: LedgerStand, payment: str, operation: str, *acts: tuple[str, str]) -> bool:
        stand.sql("WITH gone AS (DELETE FROM audit RETURNING 1) SELECT 1")
        for act, result in acts:
            stand.sql(RESOLVE, act, result, operation)
        return await stand.ledger.is_by_hand(payment, operation)

    async def story() -> list[bool]:
        async with a_ledger(database) as stand:
            desk = await an_authorized_payment(stand, await stand.acquire())
            ours = (desk.payment.id, desk.operation(Verb.AUTHORIZE).id)
            resolved = ("resolve", "carried out: the authorize is succeeded")
            return [
                await by_hand(stand, *ours, resolved),
                await by_hand(stand, *ours, ("resolve", "refused: it is taken")),
                await by_hand(stand, *ours, ("retry", "carried out: the authorize is succeeded")),
                await by_hand(stand, *ours, resolved) and await stand.ledger.is_by_hand(ours[0], "op_other"),
            ]

    assert asyncio.run(story()) == [True, False, False, False]
