"""The engine's Lua scripts in Python, one function each under the script's own name, over a Redis in memory.

Arguments and replies are what redis-py sends and gets: keys as text, values and replies as bytes and numbers. That each
does what its Lua does is shown by tests/test_simulated_redis_conforms.py, call by call against a real server. What only
operators call is not among them: no operator lives in a simulation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from redis.exceptions import ResponseError

from simulation.simulated_streams import ZERO, Entry, Group, Stream, id_of, text_of

Argument = str | bytes | int
_ENTRY = re.compile(rb'{"entry":"(\d+-\d+)"')
_LETTER = re.compile(rb'[^\n]*"dead_letter":"(\d+-\d+)"')
Keys = Sequence[str]
Arguments = Sequence[Argument]


@dataclass(kw_only=True)
class Database:
    """What one Redis holds. `now_ms` is its clock, set before each command."""

    now_ms: int = 0
    strings: dict[str, tuple[bytes, int | None]] = field(default_factory=dict)  # with the moment of expiry, in ms
    hashes: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    streams: dict[str, Stream] = field(default_factory=dict)
    scores: dict[str, dict[bytes, int]] = field(default_factory=dict)

    def get(self, key: str) -> bytes | None:
        """GET"""
        value, expires_ms = self.strings.get(key, (None, None))
        if expires_ms is not None and expires_ms <= self.now_ms:
            del self.strings[key]
            return None
        return value

    def group(self, key: str, name: str) -> Group | None:
        stream = self.streams.get(key)
        return None if stream is None else stream.groups.get(name)

    def make_group(self, key: str, name: str) -> Stream:
        """XGROUP CREATE ... 0 MKSTREAM, if it is missing."""
        stream = self.streams.setdefault(key, Stream())
        stream.groups.setdefault(name, Group())
        return stream


def accept(db: Database, keys: Keys, arguments: Arguments) -> Any:
    record, opened, commands, merchants, dead = keys
    operation, value, snapshot, backlog_max, open_max, merchant, share_max, *fields = arguments
    known = db.get(record)
    if known is not None:
        shown = db.hashes.get(opened, {}).get(_bytes(operation), b"")
        held = b'"status":null' not in known or _holds(db, commands, _ENTRY.match(known))
        return [b"known", known, 1 if held or _holds(db, dead, _LETTER.match(shown)) else 0]
    backlog = len(db.streams[commands].entries) if commands in db.streams else 0
    if backlog >= int(backlog_max):
        return [b"full", backlog]
    share = int(db.hashes.get(merchants, {}).get(_bytes(merchant), b"0"))
    if share >= int(share_max):
        return [b"share", share]
    open_now = len(db.hashes.get(opened, ()))
    if open_now >= int(open_max):
        return [b"busy", open_now]
    entry = _add(db, commands, merchants, merchant, fields)
    db.strings[record] = (_naming(entry, value), None)
    db.hashes.setdefault(opened, {})[_bytes(operation)] = _bytes(snapshot)
    return [b"accepted", entry]


def revive(db: Database, keys: Keys, arguments: Arguments) -> Any:
    record, opened, commands, merchants = keys
    operation, seen, value, snapshot, merchant, *fields = arguments
    if db.get(record) != _bytes(seen):
        return [b"changed"]
    entry = _add(db, commands, merchants, merchant, fields)
    db.strings[record] = (_naming(entry, value), None)
    shown = db.hashes.setdefault(opened, {})
    if _LETTER.match(shown.get(_bytes(operation), b"")) or _bytes(operation) not in shown:
        shown[_bytes(operation)] = _bytes(snapshot)
    return [b"revived", entry]


def settle(db: Database, keys: Keys, arguments: Arguments) -> Any:
    commands, opened, record, merchants = keys
    group, operation, value, ttl_ms, merchant, *entries = arguments
    acked = _forget_acked(db, commands, merchants, str(group), merchant, entries)
    if commands not in db.streams or not db.streams[commands].entries:
        db.hashes.pop(merchants, None)
    _drop_field(db, opened, operation)
    db.strings[record] = (_bytes(value), db.now_ms + int(ttl_ms))
    return acked


def ack(db: Database, keys: Keys, arguments: Arguments) -> Any:
    group, merchant, *entries = arguments
    return _forget_acked(db, keys[0], keys[1], str(group), merchant, entries)


def bury(db: Database, keys: Keys, arguments: Arguments) -> Any:
    commands, dead, opened, merchants = keys
    group, entry, operation, snapshot, whole, merchant, *fields = arguments
    stream = db.streams.get(commands, Stream())
    buried = stream.entries.get(id_of(_bytes(entry)))
    if buried is None:
        stream.ack(str(group), id_of(_bytes(entry)))
        return b""
    was = [b"was." + word if place % 2 == 0 else word for place, word in enumerate(buried)] if whole == "1" else []
    letters = db.streams.setdefault(dead, Stream())
    letter = text_of(letters.add([*(_bytes(word) for word in fields), *was], db.now_ms))
    shown = db.hashes.get(opened, {}).get(_bytes(operation), _bytes(snapshot)) if operation else b""
    head, newline, body = shown.partition(b"\n")
    if newline:
        facts = orjson.dumps({**orjson.loads(head), "dead_letter": letter.decode()})
        db.hashes.setdefault(opened, {})[_bytes(operation)] = facts + newline + body
    _forget_acked(db, commands, merchants, str(group), merchant, [entry])
    return letter


def letters(db: Database, keys: Keys, arguments: Arguments) -> Any:
    newest, oldest, letters_max, whole = (str(word) for word in arguments)
    stream = db.streams.get(keys[0], Stream())
    below = id_of(_bytes(newest[1:])) if newest.startswith("(") else None
    first, last = (None if word in "-+" or word.startswith("(") else id_of(_bytes(word)) for word in (oldest, newest))
    found = [
        (place, fields)
        for place, fields in reversed(stream.entries.items())
        if (below is None or place < below) and (last is None or place <= last) and (first is None or place >= first)
    ][: int(letters_max)]
    return [[text_of(place), fields if whole == "1" else _without_entry(fields)] for place, fields in found]


def requeue(db: Database, keys: Keys, arguments: Arguments) -> Any:
    dead, commands, opened, record, merchants = keys
    letter, operation, merchant = arguments
    graves = db.streams.get(dead, Stream())
    buried = graves.entries.get(id_of(_bytes(letter)))
    if buried is None:
        return [b"gone"]
    known = db.get(record)
    facts = _facts(known)
    if known is not None and isinstance(facts.get("status"), int):
        return [b"settled"]
    pairs = zip(buried[::2], buried[1::2], strict=True)
    fields = [word for name, value in pairs if name.startswith(b"was.") for word in (name[4:], value)]
    entry = _add(db, commands, merchants, merchant, fields)
    graves.delete(id_of(_bytes(letter)))
    if known is not None and known.startswith(b"{"):
        rest = _ENTRY.match(known)
        value, expires_ms = db.strings[record]
        db.strings[record] = (_naming(entry, b"{" + value[rest.end() + 1 :] if rest else value), expires_ms)
    shown = db.hashes.get(opened, {}).get(_bytes(operation), b"")
    head, newline, body = shown.partition(b"\n")
    told = _facts(head) if newline else {}
    if told.get("dead_letter") == _bytes(letter).decode():
        told.pop("dead_letter")
        db.hashes[opened][_bytes(operation)] = orjson.dumps(told) + newline + body
    return [b"requeued", entry]


def read(db: Database, keys: Keys, arguments: Arguments) -> Any:
    lease, commands = keys
    token, group, consumer, entries_max, delivered = arguments
    if db.get(lease) != _bytes(token):
        return [b"lost"]
    stream = db.make_group(commands, str(group))
    last = text_of(stream.groups[str(group)].delivered)
    if last != _bytes(delivered):
        return [b"gap", last]
    return [b"read", _raw(stream.read_group(str(group), str(consumer), int(entries_max), db.now_ms))]


def claim(db: Database, keys: Keys, arguments: Arguments) -> Any:
    lease, commands = keys
    token, group, consumer, cursor, entries_max = arguments
    if db.get(lease) != _bytes(token):
        return [b"lost"]
    stream = db.make_group(commands, str(group))
    start = id_of(_bytes(cursor))
    following, claimed = stream.claim_all(str(group), str(consumer), start, int(entries_max), db.now_ms)
    if following == ZERO:
        stream.drop_idle_consumers(str(group), str(consumer))
    return [b"claimed", text_of(following), _raw(claimed)]


def adopt(db: Database, keys: Keys, arguments: Arguments) -> Any:
    lease, commands = keys
    token, group, consumer, cursor, entries_max = arguments
    if db.get(lease) != _bytes(token):
        return [b"lost"]
    if db.group(commands, str(group)) is None:
        return [b"adopted", b"", 0]
    start = None if cursor == "-" else id_of(str(cursor)[1:])
    following, adopted = db.streams[commands].adopt(str(group), str(consumer), start, int(entries_max), db.now_ms)
    return [b"adopted", b"" if following is None else b"(" + text_of(following), adopted]


def pending(db: Database, keys: Keys, arguments: Arguments) -> Any:
    lease, commands = keys
    token, group, entries_max = arguments
    if db.get(lease) != _bytes(token):
        return [b"lost"]
    if db.group(commands, str(group)) is None:
        return [b"pending", []]
    found = db.streams[commands].waiting(str(group), int(entries_max))
    return [b"pending", [[text_of(entry), deliveries] for entry, deliveries in found]]


def reclaim(db: Database, keys: Keys, arguments: Arguments) -> Any:
    lease, commands = keys
    token, group, consumer, *entries = arguments
    if db.get(lease) != _bytes(token):
        return [b"lost"]
    if db.group(commands, str(group)) is None:
        raise ResponseError(f"NOGROUP No such key '{commands}' or consumer group '{group}'")
    wanted = [id_of(_bytes(entry)) for entry in entries]
    return [b"claimed", _raw(db.streams[commands].claim(str(group), str(consumer), wanted, db.now_ms))]


def take_lease(db: Database, keys: Keys, arguments: Arguments) -> Any:
    token, lease_ms = _bytes(arguments[0]), int(arguments[1])
    holder = db.get(keys[0])
    if holder is not None and holder != token:
        cut_lease(db, keys, arguments[1:])
        return b"held"
    db.strings[keys[0]] = (token, db.now_ms + lease_ms)
    return b"taken" if holder is None else b"kept"


def cut_lease(db: Database, keys: Keys, arguments: Arguments) -> Any:
    lease_ms = int(arguments[0])
    if db.get(keys[0]) is None:
        return 0
    value, expires_ms = db.strings[keys[0]]
    if expires_ms is not None and expires_ms - db.now_ms <= lease_ms:
        return 0
    db.strings[keys[0]] = (value, db.now_ms + lease_ms)
    return 1


def release_lease(db: Database, keys: Keys, arguments: Arguments) -> Any:
    if db.get(keys[0]) != _bytes(arguments[0]):
        return 0
    del db.strings[keys[0]]
    return 1


def heartbeat(db: Database, keys: Keys, arguments: Arguments) -> Any:
    worker, silent_ms = _bytes(arguments[0]), int(arguments[1])
    workers = db.scores.setdefault(keys[0], {})
    before = workers.get(worker, 0)
    workers[worker] = db.now_ms
    ahead = [name for name, at_ms in workers.items() if at_ms > db.now_ms]
    workers.update(dict.fromkeys(ahead, db.now_ms))
    for name in [name for name, at_ms in workers.items() if at_ms <= db.now_ms - silent_ms]:
        del workers[name]
    return [before, db.now_ms, len(ahead), *sorted(workers, key=lambda name: (workers[name], name))]


def probe(db: Database, keys: Keys, arguments: Arguments) -> Any:
    db.strings[keys[0]] = (b"1", db.now_ms + int(arguments[0]))
    return b"OK"


def leave(db: Database, keys: Keys, arguments: Arguments) -> Any:
    return 0 if db.scores.get(keys[0], {}).pop(_bytes(arguments[0]), None) is None else 1


def belong(db: Database, keys: Keys, arguments: Arguments) -> Any:
    there = db.get(keys[0])
    if there is None:
        there = _bytes(arguments[0])
        db.strings[keys[0]] = (there, None)
    return there


def abstain(db: Database, keys: Keys, arguments: Arguments) -> Any:
    worker, silent_ms = _bytes(arguments[0]), int(arguments[1])
    workers = db.scores.get(keys[0], {})
    for name in [name for name, at_ms in workers.items() if at_ms <= db.now_ms - silent_ms]:
        del workers[name]
    if not workers.keys() - {worker}:
        return 0
    workers.pop(worker, None)
    return 1


def permits(db: Database, keys: Keys, arguments: Arguments) -> Any:
    return []


Script = Callable[[Database, Keys, Arguments], Any]

SCRIPTS: dict[str, Script] = {
    "abstain": abstain,
    "accept": accept,
    "ack": ack,
    "adopt": adopt,
    "belong": belong,
    "bury": bury,
    "claim": claim,
    "cut-lease": cut_lease,
    "heartbeat": heartbeat,
    "leave": leave,
    "letters": letters,
    "pending": pending,
    "permits": permits,
    "probe": probe,
    "read": read,
    "reclaim": reclaim,
    "release-lease": release_lease,
    "requeue": requeue,
    "revive": revive,
    "settle": settle,
    "take-lease": take_lease,
}


def _trim(db: Database, keys: Keys, arguments: Arguments) -> None:
    db.streams[keys[0]].entries.clear()


def _delete_oldest(db: Database, keys: Keys, arguments: Arguments) -> None:
    entries = db.streams[keys[0]].entries
    for entry in list(entries)[:1]:
        del entries[entry]


def _delete_stream(db: Database, keys: Keys, arguments: Arguments) -> None:
    del db.streams[keys[0]]


def _set_ahead(db: Database, keys: Keys, arguments: Arguments) -> None:
    if (group := db.group(keys[0], str(arguments[0]))) is not None:
        group.delivered = db.streams[keys[0]].last


def _set_beyond(db: Database, keys: Keys, arguments: Arguments) -> None:
    if (group := db.group(keys[0], str(arguments[0]))) is not None:
        group.delivered = (10**15, 0)


def _set_back(db: Database, keys: Keys, arguments: Arguments) -> None:
    if (group := db.group(keys[0], str(arguments[0]))) is not None:
        group.delivered = ZERO


def _delete_consumers(db: Database, keys: Keys, arguments: Arguments) -> None:
    if (group := db.group(keys[0], str(arguments[0]))) is not None:
        group.consumers.clear()
        group.pending.clear()


def _destroy_group(db: Database, keys: Keys, arguments: Arguments) -> None:
    db.streams[keys[0]].groups.pop(str(arguments[0]), None)


def _destroy_and_make_at_the_end(db: Database, keys: Keys, arguments: Arguments) -> None:
    db.streams[keys[0]].groups[str(arguments[0])] = Group(delivered=db.streams[keys[0]].last)


HANDS: dict[str, Script] = {
    "XTRIM": _trim,
    "XDEL": _delete_oldest,
    "DEL": _delete_stream,
    "XGROUP SETID $": _set_ahead,
    "XGROUP SETID beyond": _set_beyond,
    "XGROUP SETID 0": _set_back,
    "XGROUP DELCONSUMER": _delete_consumers,
    "XGROUP DESTROY": _destroy_group,
    "XGROUP CREATE $": _destroy_and_make_at_the_end,
}
"""What an operator's hand may do to a stream and its group, by the command."""


def _add(db: Database, commands: str, merchants: str, merchant: Argument, fields: Arguments) -> bytes:
    """XADD, and the merchant has one entry more."""
    shares = db.hashes.setdefault(merchants, {})
    shares[_bytes(merchant)] = b"%d" % (int(shares.get(_bytes(merchant), b"0")) + 1)
    stream = db.streams.setdefault(commands, Stream())
    return text_of(stream.add([_bytes(word) for word in fields], db.now_ms))


def _naming(entry: bytes, record: Argument) -> bytes:
    return b'{"entry":"' + entry + b'",' + _bytes(record)[1:]


def _holds(db: Database, key: str, named: re.Match[bytes] | None) -> bool:
    """Whether the stream has the entry that was named."""
    return named is not None and key in db.streams and id_of(named[1]) in db.streams[key].entries


def _forget_acked(
    db: Database, commands: str, merchants: str, group: str, merchant: Argument, entries: Arguments
) -> int:
    """XACK and XDEL of each, and the merchant has as many fewer; how many were still pending."""
    stream = db.streams.get(commands, Stream())
    acked = sum([stream.ack(group, id_of(_bytes(entry))) for entry in entries])
    deleted = sum([stream.delete(id_of(_bytes(entry))) for entry in entries])
    if deleted:
        shares = db.hashes.setdefault(merchants, {})
        shares[_bytes(merchant)] = b"%d" % (int(shares.get(_bytes(merchant), b"0")) - deleted)
        if int(shares[_bytes(merchant)]) <= 0:
            _drop_field(db, merchants, merchant)
    return acked


def _drop_field(db: Database, key: str, name: Argument) -> None:
    """HDEL"""
    fields = db.hashes.get(key, {})
    fields.pop(_bytes(name), None)
    if not fields:
        db.hashes.pop(key, None)


def _without_entry(fields: list[bytes]) -> list[bytes]:
    pairs = zip(fields[::2], fields[1::2], strict=True)
    return [word for name, value in pairs if not name.startswith(b"was.") for word in (name, value)]


def _facts(data: bytes | None) -> dict[str, Any]:
    """The JSON object that this is, else nothing."""
    try:
        read = orjson.loads(data or b"")
    except orjson.JSONDecodeError:
        return {}
    return read if isinstance(read, dict) else {}


def _raw(entries: list[Entry]) -> list[list[Any]]:
    return [[text_of(entry), fields] for entry, fields in entries]


def _bytes(argument: Argument) -> bytes:
    return argument if isinstance(argument, bytes) else str(argument).encode()
