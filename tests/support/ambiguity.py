"""Whether a regular expression can be made to take more than linear time: found by its structure, not by trying.

A backtracking matcher tries every way in which a text fits, once none of them leads on. So the number of ways in which
a text can fit is what counts, as for automata (Weideman and others, "Analyzing matching time behavior of backtracking
regular expression matchers by using ambiguity of NFA", 2016): exponential when a place in the pattern comes back to
itself in two ways with one text, polynomial when two loops follow each other and one text fits the first, the way
between, and the second. The automaton has a state for each character that the pattern reads, and so no empty steps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from re import _compiler, _constants, _parser  # type: ignore[attr-defined]
from typing import Any

_CHARACTERS = [*map(chr, range(256)), "ſ", "K", "ı", "٣", "３", "Ａ", "—", "中", "\u2028", "😀"]
_REPEATS = (_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT)
_READS = (_constants.LITERAL, _constants.NOT_LITERAL, _constants.IN, _constants.ANY)
_ENDLESS = 1000  # a loop with more rounds than this is as good as one without a bound

Set = frozenset[str]


@dataclass(kw_only=True)
class _Part:
    """A part of a pattern: in how many ways it fits the empty text (2: many), the states it begins and ends with."""

    empty: int
    first: list[int]
    last: list[int]


@dataclass
class _Automaton:
    """States with what they read, and the steps between them. `unrolled`: a bounded loop is written out."""

    unrolled: bool
    reads: list[Set] = field(default_factory=list)
    steps: list[list[tuple[int, Set]]] = field(default_factory=list)
    keeps: set[int] = field(default_factory=set)  # possessive loops of one character, which give nothing back
    asserts: bool = False

    def state(self, reads: Set) -> _Part:
        self.reads.append(reads)
        self.steps.append([])
        return _Part(empty=0, first=[len(self.reads) - 1], last=[len(self.reads) - 1])

    def connect(self, sources: list[int], url_policy: list[int]) -> None:
        for source, target in product(sources, url_policy):
            reads = self.reads[target] - (self.reads[source] if source in self.keeps else frozenset())
            if reads:
                self.steps[source].append((target, reads))

    def one_after_the_other(self, one: _Part, other: _Part) -> _Part:
        self.connect(one.last, other.first)
        return _Part(
            empty=min(2, one.empty * other.empty),
            first=one.first + other.first * one.empty,
            last=other.last + one.last * other.empty,
        )

    def loop(self, part: _Part) -> _Part:
        self.connect(part.last, part.first)
        return part


def ambiguity(pattern: re.Pattern[Any], *, searched: bool, whole: bool) -> str | None:
    """How the time grows, "exponential" or "polynomial"; None: it is linear.

    `searched`: the pattern may begin anywhere in a text; `whole`: it must fit up to the text's end.
    """
    parsed = _parser.parse(pattern.pattern, pattern.flags)
    for unrolled in (False, True):
        automaton = _Automaton(unrolled=unrolled)
        part = _sequence(automaton, list(parsed), parsed.state)
        accepting = set() if whole or automaton.asserts else set(part.last)
        failing = _on_cycles(
            automaton, without=accepting
        )  # elsewhere a match was found before anything was tried twice
        if not unrolled and any(_comes_back_in_two_ways(automaton, state) for state in failing):
            return "exponential"
        if unrolled:
            if searched:
                anywhere = automaton.loop(automaton.state(frozenset(_CHARACTERS)))
                automaton.connect(anywhere.last, part.first)
            loops = _on_cycles(automaton, without=set())
            if any(_follow_each_other(automaton, one, other) for one in loops for other in failing & loops - {one}):
                return "polynomial"
    return None


def _sequence(automaton: _Automaton, nodes: list[Any], state: Any) -> _Part:
    whole = _Part(empty=1, first=[], last=[])
    for node in nodes:
        whole = automaton.one_after_the_other(whole, _part(automaton, node, state))
    return whole


def _part(automaton: _Automaton, node: tuple[Any, Any], state: Any) -> _Part:
    kind, what = node
    if kind in _READS:
        reader = _compiler.compile(_parser.SubPattern(state, [node]), state.flags)
        return automaton.state(frozenset(filter(reader.fullmatch, _CHARACTERS)))
    if kind in (_constants.AT, _constants.ASSERT, _constants.ASSERT_NOT):
        automaton.asserts = True
        return _Part(empty=1, first=[], last=[])
    if kind is _constants.SUBPATTERN:
        return _sequence(automaton, list(what[-1]), state)
    if kind is _constants.ATOMIC_GROUP:
        return _sequence(automaton, list(what), state)
    if kind is _constants.BRANCH:
        parts = [_sequence(automaton, list(branch), state) for branch in what[1]]
        return _Part(
            empty=min(2, sum(part.empty for part in parts)),
            first=[first for part in parts for first in part.first],
            last=[last for part in parts for last in part.last],
        )
    assert kind in _REPEATS, f"{kind} is not known here"
    return _repeated(automaton, *what, state, possessive=kind is _constants.POSSESSIVE_REPEAT)


def _repeated(automaton: _Automaton, least: int, most: int, body: Any, state: Any, *, possessive: bool) -> _Part:
    def once() -> _Part:
        return _sequence(automaton, list(body), state)

    if most > 1 and (not automaton.unrolled or most > _ENDLESS):
        before = _Part(empty=1, first=[], last=[])
        for _ in range(least - 1 if automaton.unrolled else 0):
            before = automaton.one_after_the_other(before, once())
        part = once()
        if possessive and len(body) == 1 and body[0][0] in _READS:
            automaton.connect(part.last, part.first)
            automaton.keeps.update(part.last)
        else:
            automaton.loop(part)
        if least == 0:
            part = _Part(empty=min(2, 1 + part.empty), first=part.first, last=part.last)
        return automaton.one_after_the_other(before, part)
    rest = _Part(empty=1, first=[], last=[])
    for _ in range(most - least):
        rest = automaton.one_after_the_other(once(), rest)
        rest = _Part(empty=min(2, 1 + rest.empty), first=rest.first, last=rest.last)
    for _ in range(least):
        rest = automaton.one_after_the_other(once(), rest)
    return rest


def _on_cycles(automaton: _Automaton, without: set[int]) -> set[int]:
    """The states that lead back to themselves, without passing some."""

    def leads_back(state: int) -> bool:
        seen, left = set(without), [target for target, _ in automaton.steps[state]]
        while left:
            here = left.pop()
            if here == state:
                return True
            if here not in seen:
                seen.add(here)
                left.extend(target for target, _ in automaton.steps[here])
        return False

    return {state for state in range(len(automaton.reads)) if state not in without and leads_back(state)}


def _comes_back_in_two_ways(automaton: _Automaton, state: int) -> bool:
    def ahead(pair: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        one, other, apart = pair
        for (i, (to, reads)), (j, (too, reads_too)) in product(
            enumerate(automaton.steps[one]), enumerate(automaton.steps[other])
        ):
            if reads & reads_too:
                yield to, too, int(apart or one != other or i != j)

    return _reaches((state, state, 0), (state, state, 1), ahead)


def _follow_each_other(automaton: _Automaton, one: int, other: int) -> bool:
    def ahead(three: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        for taken in product(*(automaton.steps[state] for state in three)):
            if frozenset.intersection(*(reads for _, reads in taken)):
                yield tuple(to for to, _ in taken)

    return _reaches((one, one, other), (one, other, other), ahead)


def _reaches(begin: tuple[int, ...], end: tuple[int, ...], ahead: Any) -> bool:
    seen, left = {begin}, [begin]
    while left:
        for there in ahead(left.pop()):
            if there == end:
                return True
            if there not in seen:
                seen.add(there)
                left.append(there)
    return False
