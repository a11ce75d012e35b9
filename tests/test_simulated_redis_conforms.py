"""The simulated Redis answers every script as the real one with the real Lua does."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from random import Random
from typing import Any

import pytest
import redis
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from engine.errors import Broken
from engine.streams import keys
from engine.streams.scripts import Scripts
from simulation.simulated_scripts import HANDS, SCRIPTS, Database
from simulation.simulated_streams import Stream, text_of

CALLS = 400
LONG_MS, SHORT_MS, LAPSED_S = 60_000, 10, 0.03
STREAM, LEASE, MERCHANTS = keys.commands(0), keys.lease(0), keys.merchants(0)
PAYMENTS = ("pay_a", "pay_b")
OPERATIONS = ("op_1", "op_2", "op_3", "op_4", "op_5")
SNAPSHOT = '{"verb":"capture"}\n{"object":"payment"}'
OF_OPERATORS = {"drop", "inspect"}  # nobody in a simulation calls them
OF_LOOK_UPS = {"find"}  # nor these
TOKENS, WORKERS = ("t1", "t2"), ("w1", "w2", "w3")
PENDING = '{"v":1,"status":null}'
_ID = re.compile(rb"(\(?)([1-9][0-9]*-[0-9]+)\Z")
_NAMING = re.compile(rb'\{"entry":"([0-9]+-[0-9]+)"(.*)\Z')


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An entry by the order in which it was first seen: each Redis gives it an id of its own."""

    number: int


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A record as it is at the moment of the call, which names an entry by the id it has there."""

    key: str


Call = tuple[str, tuple[Any, ...]]


@dataclass(kw_only=True)
class Side:
    """One of the two: knows its own ids, and speaks of entries by number."""

    send: Callable[[str, tuple[Any, ...]], Any]
    get: Callable[[str], bytes | None]
    ids: list[bytes] = field(default_factory=list)

    def call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        mine = tuple(map(self._own, arguments))
        try:
            reply = self.send(name, mine)
            return bool(reply) if name == "bury" else self.neutral(reply)
        except (Broken, ResponseError) as error:
            return "NOGROUP" if "NOGROUP" in str(error) else error

    def _own(self, word: Any) -> Any:
        if isinstance(word, Seen):
            return self.get(word.key) or b"none"
        return self.ids[word.number].decode() if isinstance(word, Entry) else word

    def neutral(self, reply: Any) -> Any:
        if isinstance(reply, list | tuple):
            return [self.neutral(word) for word in reply]
        if isinstance(reply, bytes) and (named := _NAMING.match(reply)):
            return [self.neutral(named[1]), named[2]]
        if isinstance(reply, bytes) and (found := _ID.match(reply)) and found[2] != b"1000000000000000-0":
            if found[2] not in self.ids:
                self.ids.append(found[2])
            return found[1], Entry(number=self.ids.index(found[2]))
        return reply


def a_call(draw: Random, entries: int) -> Call:
    """Some script with arguments that often mean something."""
    operation, payment, token, worker = (draw.choice(known) for known in (OPERATIONS, PAYMENTS, TOKENS, WORKERS))
    merchant = draw.choice(("m_1", "m_2"))
    some = tuple(Entry(number=draw.randrange(entries)) for _ in range(draw.randint(1, 3))) if entries else ()
    opened, record = keys.open_operations(0, payment), keys.record(0, operation)
    delivered = draw.choice((*some, "0-0", ""))
    calls: Mapping[str, tuple[Any, ...]] = {
        "accept": (
            *(record, opened, STREAM, MERCHANTS, keys.dead(0), operation, PENDING, SNAPSHOT),
            *(
                draw.choice((3, 100)),
                draw.choice((2, 100)),
                merchant,
                draw.choice((2, 100)),
                "operation",
                operation,
                "payment",
                payment,
            ),
        ),
        "settle": (STREAM, opened, record, MERCHANTS, keys.GROUP, operation, "settled", LONG_MS, merchant, *some),
        "ack": (STREAM, MERCHANTS, keys.GROUP, merchant, *some),
        "bury": (
            *(
                STREAM,
                keys.dead(0),
                opened,
                MERCHANTS,
                keys.GROUP,
                *(some[:1] or ("1-1",)),
                draw.choice((operation, "")),
            ),
            *(
                draw.choice((SNAPSHOT, "")),
                draw.choice(("1", "")),
                merchant,
                "reason",
                "because",
                "was.operation",
                operation,
            ),
        ),
        "read": (LEASE, STREAM, token, keys.GROUP, worker, draw.choice((1, 2, 50)), delivered),
        "claim": (LEASE, STREAM, token, keys.GROUP, worker, draw.choice((*some, "0-0")), draw.choice((1, 50))),
        "revive": (
            *(record, opened, STREAM, MERCHANTS, operation, Seen(key=record), PENDING, SNAPSHOT, merchant),
            *("operation", operation, "payment", payment),
        ),
        "adopt": (LEASE, STREAM, token, keys.GROUP, worker, "-", draw.choice((1, 3, 50))),
        "pending": (LEASE, STREAM, token, keys.GROUP, draw.choice((1, 50))),
        "letters": (keys.dead(0), "+", "-", draw.choice((1, 50)), draw.choice(("1", ""))),
        "requeue": (
            *(keys.dead(0), STREAM, opened, record, MERCHANTS, *(some[:1] or ("1-1",))),
            *(operation, merchant),
        ),
        "probe": (keys.PROBE, LONG_MS),
        "reclaim": (LEASE, STREAM, token, keys.GROUP, worker, *(some or ("1-1",))),
        "take-lease": (LEASE, token, draw.choice((LONG_MS, SHORT_MS))),
        "cut-lease": (LEASE, draw.choice((LONG_MS // 2, LONG_MS))),
        "release-lease": (LEASE, token),
        "heartbeat": (keys.WORKERS, worker, LONG_MS),
        "leave": (keys.WORKERS, worker),
        "abstain": (keys.WORKERS, worker, LONG_MS),
        "belong": (keys.INSTALLATION, draw.choice(("ours", "theirs"))),
        "permits": (f"GET {keys.INSTALLATION}", "TIME"),
    }
    name = draw.choice([*calls, "accept", "accept", "read", "read", "take-lease", "settle"])
    return name, calls[name]


def lay_hand_on(plain: Any, how: str) -> None:
    """What an operator with redis-cli does."""
    match how:
        case "XTRIM":
            plain.xtrim(STREAM, maxlen=0, approximate=False)
        case "XDEL":
            plain.xdel(STREAM, *(entry for entry, _ in plain.xrange(STREAM, count=1)), "1-1")
        case "DEL":
            plain.delete(STREAM)
        case "XGROUP CREATE $":
            plain.xgroup_destroy(STREAM, keys.GROUP)
            plain.xgroup_create(STREAM, keys.GROUP, "$")
        case _ if plain.xinfo_groups(STREAM):
            _lay_hand_on_group(plain, how)


def _lay_hand_on_group(plain: Any, how: str) -> None:
    match how:
        case "XGROUP SETID $":
            plain.xgroup_setid(STREAM, keys.GROUP, "$")
        case "XGROUP SETID beyond":
            plain.xgroup_setid(STREAM, keys.GROUP, "1000000000000000-0")
        case "XGROUP SETID 0":
            plain.xgroup_setid(STREAM, keys.GROUP, "0")
        case "XGROUP DELCONSUMER":
            for consumer in plain.xinfo_consumers(STREAM, keys.GROUP):
                plain.xgroup_delconsumer(STREAM, keys.GROUP, consumer["name"])
        case "XGROUP DESTROY":
            plain.xgroup_destroy(STREAM, keys.GROUP)


def test_every_script_is_simulated() -> None:
    scripts = {file.name.rpartition("-")[0] for file in files("engine.streams").joinpath("lua").iterdir()}

    assert set(SCRIPTS) == scripts - OF_OPERATORS - OF_LOOK_UPS


@pytest.mark.parametrize("seed", range(3))
def test_random_calls_are_answered_alike(redis_url: str, seed: int) -> None:
    draw = Random(seed)
    database = Database(now_ms=1_000_000)
    with asyncio.Runner() as runner, redis.Redis.from_url(redis_url) as plain:
        client = Redis.from_url(redis_url, protocol=2)
        scripts = Scripts(client)
        real = Side(send=lambda name, arguments: runner.run(scripts.call(name, *arguments)), get=plain.get)  # type: ignore[arg-type]
        simulated = Side(
            send=lambda name, arguments: _simulated(database, name, arguments), get=lambda key: database.get(key)
        )

        for number in range(CALLS):
            name, arguments = a_call(draw, len(real.ids))
            database.now_ms += 1
            time.sleep(0.001)  # two streams name entries of one millisecond alike
            there, here = real.call(name, arguments), simulated.call(name, arguments)
            if name == "heartbeat":  # who beat last comes last, and within a millisecond nobody does; clocks differ
                there, here = ((bool(before), sorted(live)) for before, _, _, *live in (there, here))
            assert here == there, f"call {number}: {name} {arguments}"
            if arguments[-1] == SHORT_MS:
                time.sleep(LAPSED_S)
                database.now_ms += int(LAPSED_S * 1000)
            if draw.random() < 0.05:
                how = draw.choice(sorted(HANDS))
                if STREAM in database.streams:
                    HANDS[how](database, (STREAM,), (keys.GROUP,))
                    lay_hand_on(plain, how)
            if draw.random() < 0.01:
                plain.flushall()
                time.sleep(0.002)  # or an id could come twice
                database = Database(now_ms=database.now_ms)

        _same_content(plain, real, simulated, database)
        runner.run(client.aclose())


def _simulated(database: Database, name: str, arguments: tuple[Any, ...]) -> Any:
    number = next(
        int(file.name.rpartition("-")[2].removesuffix(".lua"))
        for file in files("engine.streams").joinpath("lua").iterdir()
        if file.name.startswith(f"{name}-")
    )
    return SCRIPTS[name](database, arguments[:number], arguments[number:])


def _same_content(plain: Any, real: Side, simulated: Side, database: Database) -> None:
    """What is left is the same as well: strings, hashes, streams, and who has what pending."""
    strings = {key.decode(): real.neutral(plain.get(key)) for key in plain.scan_iter(_type="string")}
    held = {key: simulated.neutral(database.get(key)) for key in list(database.strings) if database.get(key)}
    assert held == strings
    hashes = {key.decode(): plain.hgetall(key) for key in plain.scan_iter(_type="hash")}
    assert {key: _read(fields) for key, fields in database.hashes.items()} == {
        key: _read(fields) for key, fields in hashes.items()
    }
    assert _entries(simulated, database, STREAM) == [
        (real.neutral(entry), fields) for entry, fields in plain.xrange(STREAM)
    ]
    letters = [fields for _, fields in plain.xrange(keys.dead(0))]
    assert [fields for _, fields in _entries(simulated, database, keys.dead(0))] == letters
    group = database.group(STREAM, keys.GROUP)
    pending = plain.xpending_range(STREAM, keys.GROUP, "-", "+", 1000) if group is not None else []
    theirs = [(real.neutral(row["message_id"]), row["consumer"].decode(), row["times_delivered"]) for row in pending]
    ours = group.pending.items() if group is not None else ()
    assert [(simulated.neutral(text_of(entry)), row.consumer, row.deliveries) for entry, row in ours] == theirs


def _read(fields: Mapping[bytes, bytes]) -> dict[bytes, tuple[bool, bytes]]:
    """Open operations: whether each is a dead letter (its id is each Redis' own), and what is shown."""
    return {name: (b"dead_letter" in shown, shown.partition(b"\n")[2] or shown) for name, shown in fields.items()}


def _entries(side: Side, database: Database, key: str) -> list[Any]:
    stream = database.streams.get(key, Stream())
    return [
        (side.neutral(text_of(entry)), dict(zip(words[::2], words[1::2], strict=True)))
        for entry, words in stream.entries.items()
    ]
