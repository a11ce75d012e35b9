"""Ids: the same request lands on the same id for ever, and nobody else does."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.ids import event_id, is_id, operation_id, partition_of, payment_id
from engine.domain.payment import Verb

ALPHABET = set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
TEXT = st.text(max_size=40)


def test_ids_do_not_change_between_versions() -> None:
    # Known answers: an id that changes would charge every retried key again. Never adapt these to the code.
    payment = payment_id("0" * 32, "m_1", "order-1")
    capture = operation_id(payment, Verb.CAPTURE, "order-1-capture")

    assert payment == "pay_7J7QR60EY6G14ABCAV5RMAZT83"
    assert capture == "op_6319G7MFYRR7PJ5MP1TVRD7451"
    assert event_id(payment, 1) == "evt_3FPHZ77Z436H4JNYP5JA38AA3Q"
    assert partition_of(payment, 16) == 8


@given(TEXT, TEXT, TEXT)
def test_an_id_has_its_shape_whatever_it_is_made_of(installation: str, merchant: str, key: str) -> None:
    payment = payment_id(installation, merchant, key)
    operation = operation_id(payment, Verb.VOID, key)

    assert payment.startswith("pay_") and len(payment) == 30 and set(payment[4:]) <= ALPHABET
    assert is_id(payment, "pay") and is_id(operation, "op") and is_id(event_id(payment, 7), "evt")
    assert not is_id(payment, "op") and not is_id(operation, "pay")


@given(st.lists(TEXT, min_size=3, max_size=3), st.lists(TEXT, min_size=3, max_size=3))
def test_parts_cannot_be_shifted_into_one_another(one: list[str], other: list[str]) -> None:
    # Without the length prefix ("ab", "c") and ("a", "bc") would be one payment of two merchants.
    assert (payment_id(*one) == payment_id(*other)) is (one == other)


def test_a_shifted_boundary_is_another_payment() -> None:
    assert payment_id("i", "merchant1", "2key") != payment_id("i", "merchant", "12key")


@pytest.mark.parametrize("verb", Verb)
def test_one_key_on_different_verbs_is_different_operations(verb: Verb) -> None:
    payment = payment_id("i", "m", "k")

    assert [operation_id(payment, other, "k") == operation_id(payment, verb, "k") for other in Verb].count(True) == 1


@pytest.mark.parametrize("partitions", [1, 2, 7, 16, 64])
def test_payments_spread_evenly_over_the_partitions(partitions: int) -> None:
    payments = 400 * partitions

    owners = Counter(partition_of(payment_id("i", "m", str(number)), partitions) for number in range(payments))

    assert set(owners) == set(range(partitions))
    assert max(owners.values()) < 1.3 * 400 and min(owners.values()) > 0.7 * 400


@given(st.binary(min_size=16, max_size=16), st.integers(1, 1024))
def test_the_partition_is_the_first_eight_bytes_modulo(digest: bytes, partitions: int) -> None:
    number = int.from_bytes(digest, "big")
    digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    text = "pay_" + "".join(digits[(number >> shift) & 31] for shift in range(125, -1, -5))

    assert is_id(text, "pay")
    assert partition_of(text, partitions) == int.from_bytes(digest[:8], "big") % partitions


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pay_",
        "pay_0",
        "pay_" + "0" * 25,
        "pay_" + "0" * 27,
        "pay_" + "8" + "0" * 25,  # more than 128 bits
        "pay_" + "0" * 25 + "I",
        "pay_" + "0" * 25 + "L",
        "pay_" + "0" * 25 + "O",
        "pay_" + "0" * 25 + "U",
        "pay_" + "0" * 25 + "a",
        "PAY_" + "0" * 26,
        "pay_" + "0" * 26 + "\n",
        " pay_" + "0" * 26,
        "pay_" + "٣" * 26,
        "pay_" + "0" * 25 + "\x00",
    ],
)
def test_what_is_no_id_is_not_taken_for_one(text: str) -> None:
    assert not is_id(text, "pay")
