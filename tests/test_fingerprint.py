"""Fingerprints: a reused key names the fields that differ, and nobody can guess what they were."""

import hashlib

import orjson
from hypothesis import given
from hypothesis import strategies as st

from engine.security.fingerprint import Fingerprinter, differing

VALUES = st.none() | st.integers(0, 10**12) | st.text(max_size=20) | st.dictionaries(st.text(max_size=5), st.text())
FIELDS = st.dictionaries(st.sampled_from(["amount", "currency", "order_id", "metadata", "description"]), VALUES)
MINE = Fingerprinter(b"f" * 32)


@given(FIELDS, FIELDS)
def test_what_differs_is_named_and_nothing_else(one: dict[str, object], other: dict[str, object]) -> None:
    names = differing(MINE.of(one), MINE.of(other))

    assert names == sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def test_a_field_left_out_is_the_same_as_null() -> None:
    assert MINE.of({"description": None}) == MINE.of({}) == {}


def test_the_order_of_members_does_not_matter() -> None:
    assert MINE.of({"metadata": {"a": "1", "b": "2"}}) == MINE.of({"metadata": {"b": "2", "a": "1"}})


def test_a_value_in_another_field_has_another_fingerprint() -> None:
    prints = MINE.of({"order_id": "1", "customer_id": "1"})

    assert prints["order_id"] != prints["customer_id"]


def test_a_number_is_not_its_text() -> None:
    assert MINE.of({"amount": 1}) != MINE.of({"amount": "1"})


def test_without_the_key_nobody_can_try_card_numbers() -> None:
    number = "4111111111111111"

    keyed = MINE.of({"payment_method/number": number})["payment_method/number"]

    assert keyed != Fingerprinter(b"g" * 32).of({"payment_method/number": number})["payment_method/number"]
    named = orjson.dumps(["payment_method/number", number])
    for text in (named, number.encode()):
        for key in (b"", bytes(32)):
            assert keyed != hashlib.blake2b(text, key=key, digest_size=len(keyed) // 2).hexdigest()


def test_fingerprints_do_not_change_between_versions() -> None:
    # A known answer: with another one every stored key would be refused as reused. Never adapt it to the code.
    assert MINE.of({"amount": 5000}) == {"amount": "f3dc060d51fd4986e77ad1a4"}
