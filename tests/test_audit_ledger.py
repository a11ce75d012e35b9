"""The audit of the ledger: a healthy one holds every invariant, and each way of breaking one by hand is named."""

from __future__ import annotations

import psycopg
import pytest

from engine.contracts.webhooks import ENDPOINT_DISABLED
from engine.domain.ids import endpoint_id
from ops.audit.invariant import INVARIANTS, RedisScan
from ops.audit.snapshot import one_moment
from ops.statement import statement
from support.audit_stand import GRACE_S, Ledger, named

pytest_plugins = ["support.bank_fixtures", "support.audit_fixtures"]

# One payment of each kind, and what the edits say of it. Constraints that stand in an edit's way are dropped first.
AUTHORIZED, CAPTURED, REFUNDED, VOIDED = (
    f"(SELECT id FROM payments WHERE state = '{state}' ORDER BY id LIMIT 1)"
    for state in ("authorized", "captured", "refunded", "voided")
)
AUTHORIZE_AGAIN = f"""
    UPDATE operations SET settled_at = NULL, response_status = NULL, response_body = NULL, {{}}
    WHERE verb = 'authorize' AND payment = {AUTHORIZED}"""
ORPHAN = "an operation of no payment"  # a bounded look goes by payments
EVENT = "INSERT INTO outbox (event_id, payment, sequence, merchant, type, payload, created_at)"


def twin(verb: str, payment: str, changes: str) -> str:
    """A second operation like the one there is, but for some columns."""
    return f"""INSERT INTO operations SELECT (jsonb_populate_record(o, '{changes}')).*
               FROM operations o WHERE verb = '{verb}' AND payment = {payment}"""


# What somebody does to the database, and the invariant it breaks.
EDITS: dict[str, tuple[str, str]] = {
    "two bank keys for one thing": (
        "one_key_per_operation",
        twin("void", VOIDED, '{"id": "op_twin", "status": "rejected"}'),
    ),
    "an attempt without a deadline": (
        "attempts_have_deadlines",
        f"UPDATE operations SET deadline = NULL WHERE verb = 'refund' AND payment = {REFUNDED}",
    ),
    "an answer without an attempt": (
        "attempts_have_deadlines",
        f"UPDATE operations SET attempts = 0 WHERE verb = 'capture' AND payment = {CAPTURED}",
    ),
    "an operation in another partition": (
        "operations_stay_in_their_partition",
        f"UPDATE operations SET partition = partition + 1 WHERE verb = 'refund' AND payment = {REFUNDED}",
    ),
    ORPHAN: (
        "operations_stay_in_their_partition",
        twin("refund", REFUNDED, '{"id": "op_twin", "payment": "pay_none"}'),
    ),
    "a row that is none of the table": (
        "journal_follows_the_table",
        "UPDATE transitions SET to_state = 'authorized' WHERE event = 'declined'",
    ),
    "a row that does not begin where the last one ended": (
        "journal_follows_the_table",
        """UPDATE transitions SET from_state = 'captured', to_state = 'refunded', event = 'refunded'
           WHERE event = 'voided'""",
    ),
    "a command that overtook another": (
        "commands_keep_their_order",
        f"UPDATE operations SET accept_order = accept_order * 2 WHERE verb = 'capture' AND payment = {REFUNDED}",
    ),
    "an effect that no operation made": (
        "effects_have_outcomes",
        f"UPDATE operations SET status = 'failed' WHERE verb = 'refund' AND payment = {REFUNDED}",
    ),
    "an effect that the receipt does not show": (
        "effects_have_outcomes",
        f"UPDATE payments SET capture_id = NULL WHERE id = {CAPTURED}",
    ),
    "an effect of another amount": (
        "effects_have_outcomes",
        f"UPDATE operations SET amount = 1 WHERE verb = 'refund' AND payment = {REFUNDED}",
    ),
    "two effects of one kind": (
        "effects_happen_once",
        f"""DROP INDEX operations_succeed_once;
            {twin("capture", CAPTURED, '{"id": "op_twin", "key": "twin"}')}""",
    ),
    "a hold both captured and voided": (
        "effects_happen_once",
        twin("capture", CAPTURED, '{"id": "op_twin", "verb": "void", "key": "twin"}'),
    ),
    "one effect in two receipts": (
        "bank_ids_are_unique",
        f"""DROP INDEX authorization_is_one_receipts;
            UPDATE payments SET authorization_id = (SELECT authorization_id FROM payments WHERE id = {CAPTURED})
            WHERE id = {AUTHORIZED}""",
    ),
    "an end without an answer": (
        "settled_has_its_answer",
        "UPDATE operations SET response_status = NULL, response_body = NULL WHERE verb = 'refund'",
    ),
    "an answer before the end": (
        "settled_has_its_answer",
        "UPDATE operations SET settled_at = NULL, status = 'review' WHERE verb = 'refund'",
    ),
    "an attempt after 24 hours": (
        "nothing_is_asked_too_late",
        "UPDATE operations SET first_sent_at = first_sent_at - interval '24 h' WHERE verb = 'refund'",
    ),
    "a failure with an attempt under way": (
        "doubt_is_no_failure",
        """UPDATE operations SET settled_at = NULL, response_status = NULL, response_body = NULL,
                                 status = 'in_doubt', next_attempt_at = now() WHERE status = 'declined'""",
    ),
    "a parked operation that is due for long": (
        "overdue_work_is_done",
        AUTHORIZE_AGAIN.format("status = 'in_doubt', next_attempt_at = now() - interval '2 min'"),
    ),
    "an attempt that was over long ago": (
        "overdue_work_is_done",
        AUTHORIZE_AGAIN.format(
            "status = 'sent', send_by = now() - interval '3 min', deadline = now() - interval '2 min'"
        ),
    ),
    "an operation whose turn came long ago": (
        "overdue_work_is_done",
        AUTHORIZE_AGAIN.format("status = 'accepted', attempts = 0, created_at = now() - interval '2 min'"),
    ),
    "an operation for a person": ("reviews_are_resolved", AUTHORIZE_AGAIN.format("status = 'review'")),
    "a row missing in the middle": (
        "sequence_is_gapless",
        f"DELETE FROM transitions WHERE sequence = 2 AND payment = {REFUNDED}",
    ),
    "a row missing at the end": (
        "sequence_is_gapless",
        f"DELETE FROM transitions WHERE sequence = 4 AND payment = {REFUNDED}",
    ),
    "a journal without its receipt": (
        "sequence_is_gapless",
        f"DELETE FROM payments WHERE id = {REFUNDED}",
    ),
    "a row without its event": (
        "rows_have_one_event",
        f"DELETE FROM outbox WHERE sequence = 2 AND payment = {REFUNDED}",
    ),
    "an event without a row": (
        "rows_have_one_event",
        f"{EVENT} SELECT event_id, payment, 9, merchant, type, payload, created_at FROM outbox LIMIT 1",
    ),
    "a row with two events": (
        "rows_have_one_event",
        f"""ALTER TABLE outbox DROP CONSTRAINT outbox_one_event;
            {EVENT} SELECT event_id, payment, sequence, merchant, type, payload, created_at FROM outbox LIMIT 1""",
    ),
    "an event that tells of something else": (
        "rows_have_one_event",
        "UPDATE outbox SET type = 'payment.captured' WHERE type = 'payment.voided'",
    ),
    "a receipt in another state than its journal": (
        "receipt_is_its_last_row",
        f"UPDATE payments SET state = 'captured' WHERE id = {REFUNDED}",
    ),
    "a head that is not the last row's": (
        "receipt_is_its_last_row",
        f"UPDATE payments SET journal_head = 'ff' WHERE id = {REFUNDED}",
    ),
    "a receipt of an operation that is not there": (
        "receipt_is_its_last_row",
        f"UPDATE payments SET operation_id = 'op_none' WHERE id = {REFUNDED}",
    ),
    "a sealed card after the answer": (
        "no_card_outlives_its_answer",
        """ALTER TABLE operations DROP CONSTRAINT settled_has_no_card;
           UPDATE operations SET sealed = 'c2VhbGVk' WHERE status = 'declined'""",
    ),
    "a sealed card that the bank may not be asked with": (
        "no_card_is_kept_too_long",
        AUTHORIZE_AGAIN.format(
            "status = 'in_doubt', next_attempt_at = now(), sealed = 'c2VhbGVk', first_sent_at = now() - interval '24 h'"
        ),
    ),
    "a sealed card that nobody could use in two days": (
        "no_card_is_kept_too_long",
        AUTHORIZE_AGAIN.format(
            "status = 'accepted', next_attempt_at = now(), sealed = 'c2VhbGVk', first_sent_at = NULL, "
            "created_at = now() - interval '49 h'"
        ),
    ),
    "a sealed card that no worker can open": (
        "cards_can_be_opened",
        AUTHORIZE_AGAIN.format(
            "status = 'accepted', next_attempt_at = now(), sealed = 'AQECAwQFBgcICQ==', first_sent_at = NULL, "
            "doubted_at = NULL, created_at = now()"
        )
        + """; INSERT INTO key_holders VALUES ('worker', 'w', 'aaaaaaaa', ARRAY['aaaaaaaa'], now(), now())""",
    ),
    "a card number in the evidence": (
        "no_card_is_in_clear",
        """UPDATE transitions SET evidence = '{"card": "4111111111111111"}' WHERE event = 'declined'""",
    ),
    "a card number in an order's name": (
        "no_card_is_in_text",
        f"UPDATE payments SET order_id = 'order 7, card 4111-1111-1111-1111' WHERE id = {CAPTURED}",
    ),
    "an act that nobody carried out": (
        "acts_are_carried_out",
        """INSERT INTO audit (at, actor, act, subject, reason, partition, payment, operation)
           SELECT now() - interval '2 min', 'me', 'retry', id, 'why not', partition, payment, id
           FROM operations WHERE verb = 'refund' LIMIT 1""",
    ),
}
BOUNDED = {invariant.name for invariant in INVARIANTS if invariant.scan in (RedisScan.CHANGED, RedisScan.OPEN)}


def test_a_healthy_ledger_breaches_nothing(ledger: Ledger) -> None:
    assert named(ledger.audited()) == set()
    assert named(ledger.glanced_at()) == set()


def test_what_merchants_are_told_of_their_endpoints_is_no_event_of_a_payment(ledger: Ledger) -> None:
    endpoint = endpoint_id(b"told")
    ledger.write(
        *(
            f"{EVENT} SELECT 'evt_notice_{notice}', '{endpoint}', {notice}, id, '{ENDPOINT_DISABLED}', '{{}}', now()"
            f" FROM merchants LIMIT 1"
            for notice in (1, 2)
        )
    )

    assert named(ledger.audited()) == set()
    assert named(ledger.glanced_at()) == set()


def test_every_invariant_of_the_ledger_is_broken_here() -> None:
    of_the_ledger = BOUNDED | {each.name for each in INVARIANTS if each.scan is RedisScan.WHOLE}
    by_a_session = {"events_become_readable"}  # tests/test_events_held_back.py

    assert {invariant for invariant, _ in EDITS.values()} == of_the_ledger - by_a_session


@pytest.mark.parametrize("told", EDITS)
def test_what_is_broken_by_hand_is_named_with_its_payment(ledger: Ledger, told: str) -> None:
    invariant, edit = EDITS[told]
    ledger.write(edit)

    whole, bounded = ledger.audited(), ledger.glanced_at()

    assert invariant in named(whole)
    assert (invariant in named(bounded)) is (invariant in BOUNDED and told != ORPHAN)
    (found,) = [each for each in whole.found if each.invariant.name == invariant]
    assert all(each.payment for each in found.breaches)


IN_TEXT = {  # what somebody types, and whether it may be a card
    "4111111111111111": True,
    "card4111111111111111x": True,
    "12 4111111111111111": True,
    "4111 1111 1111 1111": True,
    "paid_with_5555555555554444": True,
    "3782-822463-10005": True,
    "378282246310005": True,
    "30569309025904": True,
    "3530111333300000": True,
    "6011111111111117": True,
    "2223003122003222": True,
    "6212345678901232": True,
    "4222222222222": True,
    "4111111111111112": False,  # Luhn says no
    "1234567812345670": False,  # Luhn says yes, and no issuer has this prefix
    "41111111111111110000": False,
    "411111111111": False,
    "a4b4111111111111111c1": False,  # part of a random id
    "2031-05-04 12:00:00 +0000": False,
    "order-1001": False,
}
ACT = f"""
    INSERT INTO audit (actor, act, subject, reason, detail, partition, payment, operation, result, done_at)
    SELECT 'me', 'retry', id, {{}}, {{}}, partition, payment, id, 'done', now() FROM operations
    WHERE verb = 'capture' AND payment = {CAPTURED}"""
TYPED = {  # where, and how the audit calls it
    f"UPDATE payments SET order_id = %s WHERE id = {CAPTURED}": "order_id",
    f"UPDATE payments SET customer_id = %s WHERE id = {CAPTURED}": "customer_id",
    f"UPDATE payments SET description = %s WHERE id = {CAPTURED}": "description",
    f"UPDATE payments SET metadata = json_build_object('note', %s::text) WHERE id = {CAPTURED}": "metadata",
    f"UPDATE payments SET metadata = json_build_object(%s::text, 'note') WHERE id = {CAPTURED}": "metadata",
    f"UPDATE payments SET webhook_url = 'https://shop.example/' || %s WHERE id = {CAPTURED}": "webhook_url",
    f"UPDATE operations SET key = %s WHERE verb = 'capture' AND payment = {CAPTURED}": "its idempotency key",
    f"UPDATE operations SET request_id = %s WHERE verb = 'capture' AND payment = {CAPTURED}": "its request id",
    ACT.format("%s", "'{}'"): "the reason of act",
    ACT.format("'why not'", "jsonb_build_object('reference', %s::text)"): "the detail of act",
}


@pytest.mark.parametrize("text", IN_TEXT)
def test_a_text_is_named_when_its_digits_may_be_a_cards(ledger: Ledger, text: str) -> None:
    typed(ledger, next(iter(TYPED)), text)

    assert ("no_card_is_in_text" in named(ledger.audited())) is IN_TEXT[text]


@pytest.mark.parametrize("where", TYPED)
def test_a_text_with_a_card_number_is_named_by_payment_and_field_without_the_digits(ledger: Ledger, where: str) -> None:
    typed(ledger, where, "4242424242424242")

    for report in (ledger.audited(), ledger.glanced_at()):
        (found,) = [each for each in report.found if each.invariant.name == "no_card_is_in_text"]
        (breach,) = found.breaches
        assert breach.payment == ledger.one(f"SELECT {CAPTURED}")
        assert breach.detail.startswith(TYPED[where])
        assert "4242" not in repr(breach)


def test_a_webhook_endpoint_with_a_card_number_is_named(ledger: Ledger) -> None:
    ledger.write("""INSERT INTO webhook_endpoints (id, merchant, url, description, kind, status)
                    SELECT 'whe_1', id, 'https://shop.example/4242424242424242', 'x', 'registered', 'enabled'
                    FROM merchants LIMIT 1""")

    (found,) = [each for each in ledger.audited().found if each.invariant.name == "no_card_is_in_text"]
    assert [breach.detail for breach in found.breaches] == ["the URL of whe_1 holds digits that pass for a card number"]


def typed(ledger: Ledger, statement: str, text: str) -> None:
    with psycopg.connect(ledger.dsn, autocommit=True) as connection:
        connection.execute(statement.encode(), (text,))


@pytest.mark.parametrize("name", [each.name for each in INVARIANTS if each.scan is RedisScan.CHANGED])
def test_a_bounded_look_finds_each_row_by_its_payment_also_where_statistics_are_of_the_first_minute(
    ledger: Ledger, name: str
) -> None:
    given = {"payments": [f"pay_{number}" for number in range(2000)], "table": [], "grace_s": GRACE_S, "limit": 20}
    with psycopg.connect(ledger.dsn) as connection, one_moment(connection, by_index=True):
        explained = connection.execute(b"EXPLAIN " + statement(f"audit/{name}"), given)
        plan = "\n".join(row[0] for row in explained)

    acts = "Seq Scan on audit"  # few, and read only for an attempt that was late
    assert "Seq Scan" not in plan.replace(acts, "")
    assert "Memoize" not in plan and "Materialize" not in plan, "nothing is read whole, to be searched again and again"
