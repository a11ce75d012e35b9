"""The invariants that can be computed, as one table: what each means, where one looks, and what to do about a breach.

A LEDGER row's statement is ops/sql/audit/<name>.sql; it returns the offending rows, newest first. Those of Redis are
found by streams.py and keyspace.py, those of the bank by books.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class RedisScan(StrEnum):
    CHANGED = "changed"  # the ledger's rows of some payments; in a whole audit, of all
    OPEN = "open"  # what is unsettled in the ledger, each time
    WHOLE = "whole"  # all of the ledger, in a whole audit only
    REDIS = "redis"
    BANK = "bank"  # where the bank's database is given


class Weight(StrEnum):
    BREACH = "breach"  # a promise does not hold
    APART = "apart"  # no promise of ours is broken, but a person should know


@dataclass(frozen=True, slots=True, kw_only=True)
class Invariant:
    """`number` is DESIGN's, `name` is unique; a breach's remedy is a sentence for whoever is on call."""

    number: str
    name: str
    scan: RedisScan
    means: str
    remedy: str
    weight: Weight = Weight.BREACH


_HAND = "Somebody wrote to the database by hand, or this is a bug: keep the rows, and report it."
_CHAIN = "Somebody edited the journal or the receipt, or this is a bug: keep the rows, and compare them with a backup."
_ORPHAN = 'It keeps a customer\'s money for nothing: `penstock holds release HOLD --reason "..."` gives it back.'
_MONEY = "Money is at stake: compare the payment with the bank's statement (`penstock audit --bank-database`) first."

INVARIANTS: Sequence[Invariant] = (
    Invariant(
        number="I1",
        name="one_key_per_operation",
        scan=RedisScan.CHANGED,
        means="What is asked for under one key is one operation, with one bank key for ever.",
        remedy=_MONEY,
    ),
    Invariant(
        number="I1",
        name="attempts_have_deadlines",
        scan=RedisScan.CHANGED,
        means="The bank is asked only after the attempt and its deadline are committed.",
        remedy=_HAND,
    ),
    Invariant(
        number="I1",
        name="calls_are_known",
        scan=RedisScan.BANK,
        means="Every key that the bank has seen is an operation of the ledger, or the release of a hold.",
        remedy="Find out who else uses this bank; if nobody does, the ledger lost an operation: see docs/restore.md.",
    ),
    Invariant(
        number="I2",
        name="operations_stay_in_their_partition",
        scan=RedisScan.CHANGED,
        means="An operation is in the partition of its payment: one owner writes for both.",
        remedy=_HAND,
    ),
    Invariant(
        number="I2",
        name="leases_lapse",
        scan=RedisScan.REDIS,
        means="A partition's lease ends by itself when its owner dies.",
        remedy="Delete the lease key: a worker takes the partition at its next heartbeat.",
    ),
    Invariant(
        number="I2",
        name="clocks_agree",
        scan=RedisScan.REDIS,
        means="The clocks of ledger and Redis agree, and nothing in Redis is left of one that stepped back.",
        remedy="Set the clock that is wrong right (NTP). What lies ahead in Redis is cut by the workers by themselves.",
    ),
    Invariant(
        number="I3",
        name="journal_follows_the_table",
        scan=RedisScan.CHANGED,
        means="Only the lifecycle's table changes a state; each row begins where the one before it ended.",
        remedy=_CHAIN,
    ),
    Invariant(
        number="I3",
        name="commands_keep_their_order",
        scan=RedisScan.CHANGED,
        means="Commands of one payment take effect in the order of their acceptance.",
        remedy="Harmless only where Redis was lost and its clock went back. Else keep the logs, and report it.",
    ),
    Invariant(
        number="I4",
        name="accepted_is_not_lost",
        scan=RedisScan.REDIS,
        means="What was accepted is in a stream, in the ledger or a dead letter.",
        remedy="Ask the merchant to repeat the key with the same payload: that revives it under the same ids. "
        "Find out who deleted from the stream.",
    ),
    Invariant(
        number="I4",
        name="cards_can_be_opened",
        scan=RedisScan.OPEN,
        means="What waits for the bank can be opened by a worker that runs.",
        remedy="Give the workers that master key in PENSTOCK_RETIRED_MASTER_KEYS: `penstock master-key status`.",
    ),
    Invariant(
        number="I2",
        name="redis_is_this_installations",
        scan=RedisScan.REDIS,
        means="Redis holds the id of the installation that the ledger is.",
        remedy="Stop the processes of one of the two installations, and give each a Redis of its own.",
    ),
    Invariant(
        number="I5",
        name="effects_have_outcomes",
        scan=RedisScan.CHANGED,
        means="A receipt shows an effect exactly where an operation succeeded, with the same amount.",
        remedy=_MONEY,
    ),
    Invariant(
        number="I5",
        name="effects_happen_once",
        scan=RedisScan.CHANGED,
        means="A payment has one effect of a kind, and a hold is either captured or voided.",
        remedy=_MONEY,
    ),
    Invariant(
        number="I5",
        name="bank_ids_are_unique",
        scan=RedisScan.WHOLE,
        means="An effect at the bank is in one receipt.",
        remedy=_MONEY,
    ),
    Invariant(
        number="I5",
        name="bank_agrees",
        scan=RedisScan.BANK,
        means="Each effect in the ledger is one at the bank and the other way round, and every card adds up.",
        remedy="Settle each difference with the bank's statement; `penstock payment resolve` writes what it says.",
    ),
    Invariant(
        number="I5",
        name="bank_broke_promise",
        scan=RedisScan.BANK,
        means="The bank never places a hold twice under one key. It did, having lost or never stored that key.",
        remedy=_ORPHAN + " Tell the bank.",
    ),
    Invariant(
        number="I5",
        name="holds_have_a_receipt",
        scan=RedisScan.BANK,
        means="Each hold at the bank is in a receipt, or was given back.",
        remedy=_ORPHAN,
    ),
    Invariant(
        number="I6",
        name="settled_has_its_answer",
        scan=RedisScan.CHANGED,
        means="A settled operation has the bytes that its key is answered with, for ever.",
        remedy=_HAND,
    ),
    Invariant(
        number="I6",
        name="replays_are_the_ledgers",
        scan=RedisScan.REDIS,
        means="An answer that Redis replays is byte for byte the ledger's.",
        remedy="Delete the record (`penstock:{p..}:idem:..`): the ledger answers. Was Postgres set back to a backup?",
    ),
    Invariant(
        number="I7",
        name="nothing_is_asked_too_late",
        scan=RedisScan.CHANGED,
        means="Nothing is asked of the bank more than 23 h after the first time: it may have forgotten the key.",
        remedy=_MONEY + " Compare the clocks of the workers.",
    ),
    Invariant(
        number="I7",
        name="doubt_is_no_failure",
        scan=RedisScan.CHANGED,
        means="A payment is never shown as failed while an attempt is unanswered.",
        remedy=_MONEY,
    ),
    Invariant(
        number="I7",
        name="overdue_work_is_done",
        scan=RedisScan.OPEN,
        means="What is due is worked on, soon.",
        remedy="Are workers running, and does each partition have an owner (`penstock streams`)? Then read their logs.",
    ),
    Invariant(
        number="I7",
        name="reviews_are_resolved",
        scan=RedisScan.OPEN,
        means="Operations that wait for a person, because only the bank's statement can tell.",
        remedy="Look into the bank's statement, then `penstock payment resolve`.",
        weight=Weight.APART,
    ),
    Invariant(
        number="I8",
        name="sequence_is_gapless",
        scan=RedisScan.CHANGED,
        means="A payment's journal is numbered from 1 to the receipt's sequence.",
        remedy=_CHAIN,
    ),
    Invariant(
        number="I8",
        name="rows_have_one_event",
        scan=RedisScan.CHANGED,
        means="Each journal row has exactly one event to the merchant.",
        remedy="The merchant was told too little or too much: let it read the payment. " + _HAND,
    ),
    Invariant(
        number="I8",
        name="events_become_readable",
        scan=RedisScan.OPEN,
        means="A committed event can be read, and becomes webhooks, at once: no open transaction keeps it back.",
        remedy="End that backend's transaction, or the backend: SELECT pg_terminate_backend(pid). Nothing is lost.",
    ),
    Invariant(
        number="I8",
        name="receipt_is_its_last_row",
        scan=RedisScan.CHANGED,
        means="The receipt has the state and the head of its last journal row.",
        remedy=_CHAIN,
    ),
    Invariant(
        number="I9",
        name="no_card_outlives_its_answer",
        scan=RedisScan.CHANGED,
        means="A sealed card is gone with the answer.",
        remedy="Set `sealed` to null in these rows, and in backups; report it.",
    ),
    Invariant(
        number="I9",
        name="no_card_is_kept_too_long",
        scan=RedisScan.OPEN,
        means="A sealed card is kept only while the bank may be asked with it.",
        remedy="Resolve the operation; the card goes with it.",
    ),
    Invariant(
        number="I9",
        name="no_card_is_in_clear",
        scan=RedisScan.WHOLE,
        means="The engine writes no card number in clear.",
        remedy="Treat the database, its log and its backups as exposed; report it.",
    ),
    Invariant(
        number="I9",
        name="no_card_is_in_text",
        scan=RedisScan.CHANGED,
        means="No text of merchants or operators holds digits that fit a card number (prefix and check digit).",
        remedy="One number in ten fits by chance: ask the merchant. If it is a card, empty the field, here and in "
        "backups, and have the merchant stop sending it.",
        weight=Weight.APART,
    ),
    Invariant(
        number="I10",
        name="acts_are_carried_out",
        scan=RedisScan.OPEN,
        means="What an operator asks for is done or refused, soon.",
        remedy="Is the payment's partition owned (`penstock streams`)? The act is done as soon as a worker has it.",
    ),
    Invariant(
        number="I10",
        name="no_dead_letters",
        scan=RedisScan.REDIS,
        means="Accepted work is carried out, and not given up.",
        remedy="Read the reason, mend it, then requeue the dead letter or drop it.",
    ),
    Invariant(
        number="I11",
        name="waiting_entries_have_an_owner",
        scan=RedisScan.REDIS,
        means="Entries that wait or are pending are a live worker's, also after Redis was lost.",
        remedy="Are workers running? Their logs say why the partition is not taken.",
    ),
    Invariant(
        number="I11",
        name="open_is_unsettled",
        scan=RedisScan.REDIS,
        means="Operations that Redis still holds open, long after the ledger answered them: a crash left them.",
        remedy="Harmless: they take memory and one of the payment's places. A repeated key clears them.",
        weight=Weight.APART,
    ),
    Invariant(
        number="I12",
        name="nothing_is_trimmed",
        scan=RedisScan.REDIS,
        means="Entries leave a stream by being acknowledged only: XLEN is what is pending and what is unread.",
        remedy="Find out who trims, deletes or moves the group. The owner takes in hand what is still there; what is "
        "gone is revived when its key is repeated (accepted_is_not_lost names it).",
    ),
)

BY_NAME = {invariant.name: invariant for invariant in INVARIANTS}
