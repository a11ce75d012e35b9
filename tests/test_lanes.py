"""How places for webhooks are shared out: merchants take turns, their endpoints too, and nobody gets all."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from engine.webhooks.endpoint_queue import NEVER, Lanes

LONG_AGO = datetime(2030, 1, 1, tzinfo=UTC)
WIDEST = 10


def lanes(places: int, **endpoints: int) -> Lanes:
    """Lanes with something due: so many of each merchant."""
    made = Lanes(places, WIDEST)
    for merchant, number in endpoints.items():
        for index in range(number):
            made.open(f"{merchant}-{index}", merchant, LONG_AGO)
            made.due(f"{merchant}-{index}", 1.0)
    return made


def begun(made: Lanes, now: float = 2.0) -> dict[str, int]:
    """What is shared out now, and is under way from now on; all of it goes on being due."""
    shares = dict(made.shares(now))
    for endpoint, places in shares.items():
        for _ in range(places):
            made.begin(endpoint)
    return shares


def of(merchant: str, shares: dict[str, int]) -> int:
    return sum(places for endpoint, places in shares.items() if endpoint.startswith(f"{merchant}-"))


def test_a_merchant_with_hundreds_of_endpoints_leaves_places_for_the_next_merchant() -> None:
    made = lanes(40, greedy=300)
    taken = [of("greedy", begun(made)) for _ in range(5)]

    made.open("modest-0", "modest", LONG_AGO)
    made.due("modest-0", 1.0)

    assert taken == [20, 0, 0, 0, 0]
    assert begun(made) == {"modest-0": 2}


def test_two_merchants_get_as_many_places_however_many_endpoints_they_have() -> None:
    shares = begun(lanes(30, greedy=300, modest=5))

    assert of("greedy", shares) == of("modest", shares) == 10


@given(st.integers(1, 60), st.lists(st.integers(1, 30), min_size=1, max_size=12))
def test_never_more_than_there_are_and_a_newcomer_finds_a_place_unless_each_has_one(
    places: int, sizes: list[int]
) -> None:
    made = lanes(places, **{f"m{number}": size for number, size in enumerate(sizes)})
    shares = begun(made)
    while more := begun(made):
        shares = {endpoint: shares.get(endpoint, 0) + more.get(endpoint, 0) for endpoint in shares | more}
    counts = [of(f"m{number}", shares) for number in range(len(sizes))]

    made.open("new-0", "new", LONG_AGO)
    made.due("new-0", 1.0)
    arrives = begun(made)

    assert sum(counts) <= places
    assert all(counts) or sum(counts) == places
    assert arrives or sum(counts) == places <= len(sizes)


def test_the_endpoints_of_a_merchant_take_turns() -> None:
    made = lanes(4, shop=5)
    served: list[str] = []
    for now in range(2, 7):
        for endpoint in begun(made, float(now)):
            served.append(endpoint)
            made.end(endpoint, float(now))

    assert sorted(served[:5]) == [f"shop-{number}" for number in range(5)]


def test_a_lane_begins_narrow_becomes_wider_with_each_answer_and_half_as_wide_with_each_silence() -> None:
    made = lanes(1000, shop=1)
    widths = [begun(made)["shop-0"]]
    for answered in [True] * 10 + [False] * 5:
        made.fit("shop-0", answered=answered)
        widths.append(made["shop-0"].width)

    assert widths == [2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10, 5, 2, 1, 1, 1]


def test_a_lane_that_is_closed_is_left_alone_whatever_rings() -> None:
    made = lanes(10, shop=1)
    made.close("shop-0", 60.0)

    made.due("shop-0", 3.0)

    assert (made.next_due_at(), dict(made.shares(59.0)), dict(made.shares(60.0))) == (60.0, {}, {"shop-0": 2})


def test_what_was_left_out_for_want_of_a_place_is_looked_at_when_one_is_free() -> None:
    made = lanes(2, first=1, second=1)
    begun(made)
    assert made.next_due_at() == NEVER
    made.shares(2.0)

    assert made.end("first-0", 2.0)
    assert "second-0" in made


def test_lanes_of_nobody_are_forgotten_once_nothing_is_under_way() -> None:
    made = lanes(10, shop=2)
    made.begin("shop-0")

    made.keep(set())
    assert ("shop-0" in made, "shop-1" in made) == (True, False)

    made.end("shop-0", 2.0)
    made.keep(set())
    assert "shop-0" not in made
