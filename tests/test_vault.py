"""The vault: a sealed card opens for its operation, under its key, unaltered, and not otherwise (I9)."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.domain.payment import Card
from engine.errors import Broken
from engine.security.encryption import Access, Vault, brand_of, key_id

KEY, OLD, OTHER = b"k" * 32, b"o" * 32, b"x" * 32
CARD = Card(number="4111111111111111", cvv="123", expiry_month=12, expiry_year=2030)
HEAD_BYTES = 1  # the version byte chooses the reader, it protects nothing


@given(st.from_regex(r"[0-9]{13,19}", fullmatch=True), st.from_regex(r"[0-9]{3,4}", fullmatch=True))
def test_a_sealed_card_opens_for_its_operation(number: str, cvv: str) -> None:
    vault, card = Vault([KEY]), Card(number=number, cvv=cvv, expiry_month=1, expiry_year=2031)

    assert vault.open(vault.seal(card, "op_1"), "op_1") == card


def test_a_sealed_card_opens_for_no_other_operation() -> None:
    vault = Vault([KEY])

    with pytest.raises(Broken):
        vault.open(vault.seal(CARD, "op_1"), "op_2")


@given(st.integers(HEAD_BYTES, 10_000), st.integers(1, 255))
def test_an_altered_envelope_does_not_open(position: int, mask: int) -> None:
    vault = Vault([KEY])
    raw = bytearray(base64.b64decode(vault.seal(CARD, "op_1")))
    raw[HEAD_BYTES + position % (len(raw) - HEAD_BYTES)] ^= mask

    with pytest.raises(Broken):
        vault.open(base64.b64encode(raw).decode(), "op_1")


@given(st.integers(0, 70))
def test_a_cut_envelope_does_not_open(length: int) -> None:
    vault = Vault([KEY])
    raw = base64.b64decode(vault.seal(CARD, "op_1"))

    with pytest.raises(Broken):
        vault.open(base64.b64encode(raw[: min(length, len(raw) - 1)]).decode(), "op_1")


@given(st.text(max_size=40))
def test_what_is_no_envelope_is_broken_and_nothing_worse(text: str) -> None:
    with pytest.raises(Broken):
        Vault([KEY]).open(text, "op_1")


def test_a_retired_key_opens_what_it_sealed_while_the_new_one_seals() -> None:
    sealed = Vault([OLD]).seal(CARD, "op_1")
    rotated = Vault([KEY, OLD])

    assert rotated.open(sealed, "op_1") == CARD
    assert Vault([KEY]).open(rotated.seal(CARD, "op_2"), "op_2") == CARD


def test_an_envelope_of_another_version_names_no_key() -> None:
    sealed = Vault([KEY]).seal(CARD, "op_1")
    other = base64.b64encode(b"\x02" + base64.b64decode(sealed)[1:]).decode()

    assert key_id(sealed) in Vault([KEY]).checks
    assert (key_id(other), Vault([KEY]).access(other)) == ("", Access.NOBODY)


def test_a_key_that_is_gone_opens_nothing() -> None:
    with pytest.raises(Broken):
        Vault([OTHER]).open(Vault([OLD]).seal(CARD, "op_1"), "op_1")


def test_no_two_envelopes_are_the_same() -> None:
    vault = Vault([KEY])

    assert vault.seal(CARD, "op_1") != vault.seal(CARD, "op_1")


def test_neither_envelope_nor_error_nor_repr_shows_the_card() -> None:
    vault = Vault([KEY])
    sealed = vault.seal(CARD, "op_1")

    with pytest.raises(Broken) as broken:
        vault.open(sealed, "op_2")

    for text in (sealed, base64.b64decode(sealed).hex(), str(broken.value), repr(CARD), str(CARD)):
        assert "4111111111111111" not in text
    assert broken.value.__cause__ is None


@pytest.mark.parametrize("keys", [[], [b"short"], [KEY, b"short"], [KEY + b"1"]])
def test_a_vault_refuses_keys_of_a_wrong_length(keys: list[bytes]) -> None:
    with pytest.raises(Broken):
        Vault(keys)


@pytest.mark.parametrize(
    ("number", "brand"),
    [
        ("4111111111111111", "visa"),
        ("5555555555554444", "mastercard"),
        ("2221000000000009", "mastercard"),
        ("2720999999999996", "mastercard"),
        ("2721000000000004", "unknown"),
        ("378282246310005", "amex"),
        ("6011111111111117", "discover"),
        ("9999999999999995", "unknown"),
    ],
)
def test_a_brand_is_told_by_the_leading_digits(number: str, brand: str) -> None:
    assert brand_of(number) == brand
