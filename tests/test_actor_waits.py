"""What an actor waits for before it asks the bank, by which clock, and whom it believes: to the millisecond (I7)."""

from __future__ import annotations

from datetime import timedelta

import anyio
import pytest

from engine.domain.bank_answer import Absent, Found, NoAnswer
from engine.domain.operator_rules import PaymentActionKind, WaitingAction
from engine.domain.payment import PaymentState, Status, Verb
from engine.ledger.store_clock import Store
from engine.ledger.writer import FencingToken
from engine.worker.pending_entries import MailboxMessage
from support.actor_stand import BANK_S, BEGINS_S, CARD, VAULT, HastyLoop, Stand, played
from support.decision_stand import (
    ALREADY,
    AMOUNT,
    BROKE,
    HELD_BACK,
    LOST,
    NEVER_AGAIN,
    NOON,
    PATIENCE,
    Desk,
    a_captured_payment,
    a_command,
    a_payment_begun,
    an_authorized_payment,
    changed,
)

ATTEMPT_S = PATIENCE.attempt.total_seconds()
WINDOW_S = PATIENCE.send_window.total_seconds()
HOUR_S, DAY_S = 3600.0, 86_400.0
PAYMENT = a_payment_begun().payment.id


def lost_by_its_owner() -> Desk:
    """A capture that another worker committed just now, and may be sending."""
    desk = an_authorized_payment().accept(Verb.CAPTURE)
    assert desk.at_bank is not None
    return desk


def sealed(desk: Desk) -> Desk:
    """With a card that can be opened."""
    first = desk.operations[0]
    return desk.holding(changed(first, sealed=VAULT.seal(CARD, first.id)))


@pytest.mark.parametrize("wrong_s", [0.0, -HOUR_S, HOUR_S])
@pytest.mark.parametrize(("worst_s", "least_s"), [(5.0, ATTEMPT_S), (60.0, WINDOW_S + 60.0)], ids=["quick", "slow"])
def test_a_lost_attempt_is_waited_for_in_whole_and_until_the_bank_has_drained_its_queue(
    wrong_s: float, worst_s: float, least_s: float
) -> None:
    async def story(stand: Stand) -> None:
        stand.wrong_s = wrong_s
        await stand.works(PAYMENT)

        (asked_at,) = stand.bank.asked_at
        assert least_s <= asked_at < least_s + 0.1
        assert stand.ledger.payment is not None and stand.ledger.payment.state is PaymentState.CAPTURED

    played(story, lost_by_its_owner(), worst_s=worst_s)


def test_a_lost_attempt_needs_a_proof_of_its_own_whatever_was_proven_of_the_one_before() -> None:
    desk = lost_by_its_owner()

    async def story(stand: Stand) -> None:
        bank_key, owner = desk.operation(Verb.CAPTURE).bank_key, stand.home.fence.token
        stand.gate.lost(bank_key, 0.0, owner)
        assert await stand.gate.drained_in(bank_key, owner) == 60.0
        await anyio.sleep(100.0)

        await stand.works(PAYMENT)

        (asked_at,) = stand.bank.asked_at
        assert asked_at >= 100.0 + WINDOW_S + 60.0

    played(story, desk, worst_s=60.0)


@pytest.mark.parametrize(("worst_s", "least_s"), [(0.0, ATTEMPT_S), (60.0, WINDOW_S + 60.0)], ids=["quick", "slow"])
def test_what_a_tenure_has_waited_for_is_not_waited_for_again(worst_s: float, least_s: float) -> None:
    async def story(stand: Stand) -> None:
        since_s = anyio.current_time()
        assert await stand.context.bank_caller.all_drained("3:token")
        await stand.works(PAYMENT, drained_since_s=since_s)

        ((asked_at, ask),) = stand.bank.asked[:1]
        assert least_s <= asked_at < least_s + 0.1
        assert ask.doubted

    played(story, lost_by_its_owner(), worst_s=worst_s)


def test_an_attempt_that_this_actor_may_have_committed_is_waited_for_in_whole() -> None:
    async def story(stand: Stand) -> None:
        since_s = anyio.current_time()
        assert await stand.context.bank_caller.all_drained("3:token")
        stand.ledger.unheard = 1
        await stand.works(PAYMENT, drained_since_s=since_s)

        (asked_at,) = stand.bank.asked_at
        assert asked_at >= 2 * (WINDOW_S + 60.0)

    played(story, lost_by_its_owner(), worst_s=60.0)


def test_nothing_is_drained_while_the_bank_does_not_answer() -> None:
    async def story(stand: Stand) -> None:
        stand.bank.answers = False
        assert not await stand.context.bank_caller.all_drained("3:token")
        stand.bank.answers = True
        assert await stand.context.bank_caller.all_drained("3:token")

    played(story, worst_s=60.0)


def test_what_another_owner_left_unanswered_meanwhile_needs_a_proof_of_its_own() -> None:
    desk = an_authorized_payment().accept(Verb.CAPTURE)
    parked = changed(desk.operation(Verb.CAPTURE), status=Status.IN_DOUBT, doubted_at=NOON, next_attempt_at=NOON)

    async def story(stand: Stand) -> None:
        async def owns(epoch: int, asked: int) -> None:
            """An owner works on it, whenever it is due, until the bank was asked so often."""
            stand.home.fence = FencingToken(epoch, f"token {epoch}")
            while len(stand.bank.asked) < asked:
                await stand.works(PAYMENT)
                await anyio.sleep(PATIENCE.farthest.total_seconds())

        stand.bank.says = [LOST, LOST]
        await owns(1, asked=2)  # and sees the proof of both before it goes
        # The partition is another process's for a while, which asks, is told nothing, and parks it.
        mine = stand.operation(Verb.CAPTURE)
        theirs = changed(mine, attempts=mine.attempts + 1, next_attempt_at=stand.clock.now())
        stand.ledger.operations[mine.id] = theirs
        back_s = anyio.current_time() - BEGINS_S
        await owns(3, asked=3)

        assert stand.operation(Verb.CAPTURE).attempts > theirs.attempts
        assert stand.bank.asked_at[2] >= back_s + 60.0
        assert stand.operation(Verb.CAPTURE).status is Status.SUCCEEDED

    played(story, desk.holding(parked), worst_s=60.0)


def test_a_call_that_was_sent_while_a_lost_attempt_could_still_be_written_proves_nothing_of_it() -> None:
    async def story(stand: Stand) -> None:
        async def other() -> None:
            await anyio.sleep(WINDOW_S / 2)
            await stand.context.bank_caller.ask(
                desk.payment, changed(capture, id="op_other"), stand.clock.steady(), inherited=False, owner="token"
            )

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other)
            await stand.works(PAYMENT)

        assert len(stand.bank.asked) == 2 and stand.bank.asked_at[1] >= WINDOW_S + 60.0

    desk = lost_by_its_owner()
    capture = desk.operation(Verb.CAPTURE)
    played(story, desk, worst_s=60.0)


def test_a_lost_attempt_is_asked_again_in_doubt_and_is_not_the_bank_s_silence() -> None:
    async def story(stand: Stand) -> None:
        await stand.works(PAYMENT)

        ((_, ask),) = stand.bank.asked
        assert (ask.doubted, ask.repeated) == (True, False)

    played(story, lost_by_its_owner())


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "in hand"])
@pytest.mark.parametrize("wrong", [*Store, None], ids=["the ledger alone", "redis alone", "both stores"])
def test_what_two_clocks_call_too_old_for_its_key_is_not_asked_again_and_one_alone_is_not_believed(
    wrong: Store | None, lost: bool
) -> None:
    desk = lost_by_its_owner() if lost else an_authorized_payment().accept(Verb.CAPTURE).answer(HELD_BACK)

    async def story(stand: Stand) -> None:
        def ahead() -> None:
            for store in Store:
                stand.tells(store, 2 * DAY_S if wrong in (store, None) else 0.0)

        stand.bank.says, stand.bank.meanwhile = [BROKE], ahead
        if lost:
            ahead()
        else:
            await anyio.sleep(HOUR_S)
        await stand.works(PAYMENT)

        if wrong is None:
            assert len(stand.bank.asked) == (0 if lost else 1)
            assert stand.operation(Verb.CAPTURE).status is Status.REVIEW
        else:
            assert stand.operation(Verb.CAPTURE).status is not Status.REVIEW

    played(story, desk)


def test_an_attempt_in_hand_is_over_by_our_own_clock_before_the_next_whatever_the_ledger_s_does() -> None:
    async def story(stand: Stand) -> None:
        stand.bank.says = [LOST]  # it hung up at once, and the ledger's clock steps
        stand.bank.meanwhile = lambda: stand.tells(Store.LEDGER, HOUR_S if len(stand.bank.asked) == 1 else 0.0)
        await stand.works(PAYMENT)

        first, second = stand.bank.asked_at
        assert second - first >= ATTEMPT_S
        assert [(ask.doubted, ask.repeated) for _, ask in stand.bank.asked] == [(False, False), (True, True)]

    played(story, fresh_capture())


def fresh_capture() -> Desk:
    """A capture that is in the ledger, was held back before, and may be asked now."""
    desk = an_authorized_payment().accept(Verb.CAPTURE).answer(HELD_BACK)
    return desk.holding(changed(desk.operation(Verb.CAPTURE), next_attempt_at=NOON))


def test_an_attempt_that_the_bank_has_ended_is_made_again_after_a_pause() -> None:
    async def story(stand: Stand) -> None:
        stand.bank.says = [BROKE]
        await stand.works(PAYMENT)

        first, second = stand.bank.asked_at
        assert BANK_S + 0.001 < second - first < BANK_S + PATIENCE.retry_base.total_seconds() + 0.01

    played(story, fresh_capture())


@pytest.mark.parametrize("wrong_s", [0.0, -HOUR_S, HOUR_S])
def test_each_attempt_may_be_written_for_its_whole_window_from_its_own_commit_by_the_steady_clock(
    wrong_s: float,
) -> None:
    desk = sealed(a_payment_begun(sale=True))
    unsent = changed(desk.operations[0], status=Status.ACCEPTED, attempts=0, send_by=None, deadline=None)

    async def story(stand: Stand) -> None:
        stand.tells(Store.LEDGER, wrong_s)
        stand.bank.takes_s = [5.0, 5.0]
        await stand.works(PAYMENT)

        assert [ask.verb for _, ask in stand.bank.asked] == [Verb.AUTHORIZE, Verb.CAPTURE]
        assert stand.bank.windows == [PATIENCE.send_window] * 2

    played(story, desk.holding(unsent))


def test_timers_that_ring_early_cost_a_lost_attempt_no_second_wait() -> None:
    async def story(stand: Stand) -> None:
        await stand.works(PAYMENT)

        (asked_at,) = stand.bank.asked_at
        assert WINDOW_S + 60.0 <= asked_at < WINDOW_S + 60.1
        assert stand.operation(Verb.CAPTURE).status is Status.SUCCEEDED

    played(story, lost_by_its_owner(), worst_s=60.0, time=HastyLoop)


def test_what_this_worker_cannot_carry_out_is_not_committed_and_its_entries_are_left_to_others() -> None:
    async def story(stand: Stand) -> None:
        stand.connectors.clear()
        command = a_command(Verb.CAPTURE, "next")

        await stand.works(PAYMENT, MailboxMessage(command=command, entry="5-0", first=True))

        assert "has no connector" in stand.home.why_unable
        assert (stand.ledger.steps, stand.let_go, stand.home.released) == ([], [], [])
        assert stand.home.left == ["5-0"]

    played(story, an_authorized_payment())


@pytest.mark.parametrize("of", ["a lost attempt", "a lost attempt that its tenure waited for", "an operator's act"])
def test_without_the_connector_of_what_was_begun_elsewhere_nothing_is_decided(of: str) -> None:
    desk = lost_by_its_owner() if "lost" in of else an_authorized_payment().accept(Verb.CAPTURE).answer(NEVER_AGAIN)

    async def story(stand: Stand) -> None:
        if of == "an operator's act":
            stand.ledger.acts = an_act(
                PaymentActionKind.RESOLVE, desk, Verb.CAPTURE, outcome="approved", reference="cap_9"
            )
        stand.connectors.clear()
        before = stand.operation(Verb.CAPTURE)

        await stand.works(PAYMENT, drained_since_s=anyio.current_time() if "waited" in of else None)

        assert "has no connector" in stand.home.why_unable
        assert (stand.ledger.steps, stand.operation(Verb.CAPTURE)) == ([], before)

    played(story, desk)


def test_an_id_that_another_receipt_has_is_a_question_for_a_person_and_not_believed() -> None:
    async def story(stand: Stand) -> None:
        stand.ledger.taken = "capture_1"
        await stand.works(PAYMENT)

        assert stand.operation(Verb.CAPTURE).status is Status.REVIEW
        assert stand.ledger.payment is not None and stand.ledger.payment.bank.capture_id is None
        assert "capture_1" in str(stand.ledger.steps[-1].events[-1][0].entry.evidence["reason"])

    played(story, fresh_capture())


@pytest.mark.parametrize("wrong", ["ledger", "redis", "process", "none"])
def test_an_authorization_is_released_only_when_all_clocks_say_that_it_is_old(wrong: str) -> None:
    old_s = (timedelta(days=7) + PATIENCE.expiry_grace).total_seconds() + 1.0

    async def story(stand: Stand) -> None:
        stand.tells(Store.LEDGER, 0.0 if wrong == "ledger" else old_s)
        stand.tells(Store.REDIS, 0.0 if wrong == "redis" else old_s)
        stand.wrong_s = 0.0 if wrong == "process" else old_s
        await stand.works(PAYMENT)

        assert [ask.verb for _, ask in stand.bank.asked] == ([Verb.VOID] if wrong == "none" else [])

    played(story, an_authorized_payment())


@pytest.mark.parametrize("verb", [Verb.CAPTURE, Verb.VOID])
def test_another_merchant_s_command_is_given_up_and_never_carried_out(verb: Verb) -> None:
    async def story(stand: Stand) -> None:
        command = changed(a_command(verb, "theirs"), merchant="m_2")

        await stand.works(PAYMENT, MailboxMessage(command=command, entry="5-0", first=True))

        assert (stand.bank.asked, stand.ledger.steps) == ([], [])
        assert [(buried.entry, buried.merchant) for buried in stand.home.buried] == [("5-0", "m_2")]

    played(story, an_authorized_payment())


def an_act(kind: PaymentActionKind, desk: Desk, verb: Verb, **detail: object) -> tuple[WaitingAction, ...]:
    operation = desk.operation(verb)
    act = WaitingAction(id=1, kind=kind, operation=operation.id, actor="ada", reason="a test", detail=detail)
    return (act,)


@pytest.mark.parametrize(
    ("behind_s", "wait_s"), [(0.0, ATTEMPT_S), (8.0, ATTEMPT_S - 8.0), (100.0, 0.0), (-HOUR_S, ATTEMPT_S)]
)
def test_a_retry_waits_for_what_is_left_of_the_parked_attempt_and_no_longer_than_any_attempt_takes(
    behind_s: float, wait_s: float
) -> None:
    desk = an_authorized_payment().accept(Verb.CAPTURE)
    capture = changed(
        desk.operation(Verb.CAPTURE), status=Status.IN_DOUBT, doubted_at=NOON, next_attempt_at=NOON + timedelta(days=1)
    )
    desk = desk.holding(capture)

    async def story(stand: Stand) -> None:
        stand.tells(Store.LEDGER, behind_s)
        stand.ledger.acts = an_act(PaymentActionKind.RETRY, desk, Verb.CAPTURE)
        await stand.works(PAYMENT)

        (asked_at,) = stand.bank.asked_at
        assert wait_s <= asked_at < wait_s + 0.1

    played(story, desk)


def in_review() -> Desk:
    return a_captured_payment().accept(Verb.REFUND).answer(LOST).answer(ALREADY)


def test_an_act_s_claim_is_looked_up_in_the_ledger_and_at_the_bank() -> None:
    desk = in_review()
    right = Found(reference="ref_9", amount=AMOUNT, currency="USD", parent=desk.payment.bank.capture_id, at=NOON)
    results, looked_up = [], []
    for finding, taken in ((right, ""), (right, "ref_9"), (Absent(reason="it does not know it"), "")):

        async def story(stand: Stand, finding: Found | Absent = finding, taken: str = taken) -> None:
            stand.bank.findings, stand.ledger.taken = [finding], taken
            stand.ledger.acts = an_act(
                PaymentActionKind.RESOLVE, desk, Verb.REFUND, outcome="approved", reference="ref_9"
            )
            await stand.works(PAYMENT)
            results.extend(stand.ledger.results)
            looked_up.extend(stand.bank.looked_up)

        played(story, desk)

    assert results[0].startswith("carried out")
    assert [result.partition(":")[0] for result in results[1:]] == ["refused", "refused"]
    assert "payment pay_other has it" in results[1] and "does not know it" in results[2]
    assert looked_up == [(Verb.REFUND, "ref_9")] * 3


def test_a_look_up_that_was_not_answered_is_made_again_before_the_act_is_refused() -> None:
    desk = in_review()
    right = Found(reference="ref_9", amount=AMOUNT, currency="USD", parent=desk.payment.bank.capture_id, at=NOON)

    async def story(stand: Stand) -> None:
        stand.bank.findings = [NoAnswer(reason="timeout"), NoAnswer(reason="timeout"), right]
        stand.ledger.acts = an_act(PaymentActionKind.RESOLVE, desk, Verb.REFUND, outcome="approved", reference="ref_9")
        await stand.works(PAYMENT)

        assert stand.ledger.results[0].startswith("carried out")

    played(story, desk)


@pytest.mark.parametrize("by_hand", [True, False], ids=["an operator's word", "the bank's word"])
def test_only_an_id_that_an_operator_gave_is_corrected(by_hand: bool) -> None:
    desk = an_authorized_payment()

    async def story(stand: Stand) -> None:
        stand.ledger.by_hand = {desk.operation(Verb.AUTHORIZE).id} if by_hand else set()
        stand.ledger.acts = an_act(PaymentActionKind.CORRECT, desk, Verb.AUTHORIZE, reference="auth_9")
        await stand.works(PAYMENT)

        assert stand.ledger.results[0].startswith("carried out" if by_hand else "refused: the bank itself gave")

    played(story, desk)


def test_an_act_waits_for_the_outcome_of_an_attempt_that_its_owner_lost() -> None:
    desk = lost_by_its_owner()

    async def story(stand: Stand) -> None:
        stand.ledger.acts = an_act(PaymentActionKind.RETRY, desk, Verb.CAPTURE)
        await stand.works(PAYMENT)

        assert len(stand.bank.asked) == 1
        assert stand.ledger.results == ["refused: the capture is succeeded already"]

    played(story, desk)


def test_an_entry_that_names_another_payment_s_operation_is_given_up() -> None:
    command = a_command(Verb.CAPTURE, "theirs")
    theirs = changed(an_authorized_payment().operations[0], id=command.operation, payment="pay_" + "0" * 26)

    async def story(stand: Stand) -> None:
        stand.ledger.others = {theirs.id: theirs}
        await stand.works(PAYMENT, MailboxMessage(command=command, entry="5-0", first=False))

        assert (stand.bank.asked, stand.ledger.steps) == ([], [])
        assert [buried.entry for buried in stand.home.buried] == ["5-0"]

    played(story, an_authorized_payment())


@pytest.mark.parametrize(("entry", "order"), [("9-0", 9_000_000), ("7-0", 7_000_000), ("5-0", None), ("4-0", None)])
def test_an_entry_from_before_its_payment_comes_behind_all_that_is_known_and_any_other_in_its_own_place(
    entry: str, order: int | None
) -> None:
    """The clock of a Redis that lost its memory may have stepped back."""
    desk = fresh_capture()
    authorize, capture = desk.operations
    desk = desk.holding(changed(authorize, accept_order=5_000_000))
    waits = NOON + timedelta(minutes=1)
    desk = desk.holding(changed(capture, accept_order=8_000_000, next_attempt_at=waits))

    async def story(stand: Stand) -> None:
        delivery = MailboxMessage(command=a_command(Verb.VOID, "late"), entry=entry, first=True)
        await stand.works(PAYMENT, delivery)

        known = stand.operation(Verb.VOID).accept_order
        assert known == order or (order is None and known > 8_000_000)
        assert stand.bank.asked == []

    played(story, desk)
