"""What our user of Redis must be permitted: each command, with a key or channel of ours that it is used on.

A user who lacks one of NEEDED accepts payments that nobody can carry out, so he counts as one who does not fit
(store_locations.py). Without CHANNELS everything works, but clients that wait learn of an outcome by looking, up to 250
ms late.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.streams import keys

RULE = "~penstock:* &penstock:* +@all -@dangerous +info"  # grants all of it, and nothing that an administrator needs
_SHOWN_MAX = 6

_COMMANDS, _OPEN, _MERCHANTS = keys.commands(0), keys.open_operations(0, "pay"), keys.merchants(0)
_RECORD, _DEAD, _LEASE = keys.record(0, "op"), keys.dead(0), keys.lease(0)
_GROUP = f"{_COMMANDS} {keys.GROUP}"
# fmt: off
NEEDED: tuple[str, ...] = (
    # outside of scripts
    "EVALSHA 0 0",
    "SCRIPT LOAD 0",
    "TIME",
    f"HGETALL {_OPEN}",
    f"XREAD STREAMS {_COMMANDS} 0",
    # and in them, a line for each kind of value
    f"GET {keys.INSTALLATION}", f"SET {keys.PROBE} 1", f"DEL {_LEASE}", f"PEXPIRE {_RECORD} 1", f"PTTL {_LEASE}",
    f"HGET {_MERCHANTS} m", f"HSET {_OPEN} o 1", f"HDEL {_OPEN} o", f"HLEN {_OPEN}", f"HINCRBY {_MERCHANTS} m 1",
    f"ZADD {keys.WORKERS} 1 w", f"ZREM {keys.WORKERS} w", f"ZCARD {keys.WORKERS}", f"ZSCORE {keys.WORKERS} w",
    f"ZRANGE {keys.WORKERS} 0 1", f"ZRANGEBYSCORE {keys.WORKERS} 0 1", f"ZREMRANGEBYSCORE {keys.WORKERS} 0 1",
    f"XADD {_COMMANDS} * a b", f"XADD {_DEAD} * a b", f"XDEL {_COMMANDS} 0-1", f"XLEN {_COMMANDS}",
    f"XRANGE {_COMMANDS} - +", f"XREVRANGE {_DEAD} + -",
    f"XREADGROUP GROUP {keys.GROUP} w STREAMS {_COMMANDS} >",
    f"XACK {_GROUP} 0-1", f"XCLAIM {_GROUP} w 0 0-1", f"XAUTOCLAIM {_GROUP} w 0 0-1", f"XPENDING {_GROUP}",
    f"XGROUP CREATE {_GROUP} 0", f"XGROUP SETID {_GROUP} 0", f"XGROUP DELCONSUMER {_GROUP} w",
    f"XINFO STREAM {_COMMANDS}", f"XINFO GROUPS {_COMMANDS}", f"XINFO CONSUMERS {_GROUP}",
)
# fmt: on
CHANNELS: tuple[str, ...] = (f"PUBLISH {keys.reply('0')} 0", f"SUBSCRIBE {keys.reply('0')}")


def name_of(command: str) -> str:
    """The command without its keys and arguments, a subcommand with its own name."""
    first, second, *_ = [*command.split(), ""]
    return f"{first} {second}" if first in ("SCRIPT", "XGROUP", "XINFO") else first


def lacking(missing: Iterable[int], user: str = "USER") -> str | None:
    """What is wrong, in words with the rule that grants it, when these numbers of NEEDED are not permitted."""
    names = list(dict.fromkeys(name_of(NEEDED[number]) for number in missing))
    if not names:
        return None
    return f"NOPERM: Redis does not permit our user {_listed(names)} on keys penstock:*; {granting(user)}"


def granting(user: str = "USER") -> str:
    """What to do about it."""
    return f"grant it: ACL SETUSER {user} {RULE}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN_MAX} more commands" if len(names) > _SHOWN_MAX else ""
    return ", ".join(names[:_SHOWN_MAX]) + more
