"""Every Redis key name, under one map. All keys of one partition carry its hash tag: one slot, one script."""

from __future__ import annotations

# key                              type     written by          deleted by              TTL
# penstock:{p7}:commands           stream   accept, revive      settle (entry by entry)  none, never trimmed (I12)
# penstock:{p7}:idem:<operation>   string   accept, settle      expiry, drop             none; once settled, the TTL
# penstock:{p7}:open:<payment>     hash     accept, bury        settle, drop (by field)  none
# penstock:{p7}:merchants          hash     accept, requeue     settle, ack, bury        none: entries of each merchant
# penstock:{p7}:lease              string   hold-lease          release-lease, expiry    lease
# penstock:{p7}:dead               stream   bury                requeue, drop            none, never trimmed
# penstock:workers                 zset     heartbeat           heartbeat, leave         none
# penstock:probe                   string   probe               expiry                   seconds
# penstock:installation            string   belong              -                        none: whose Redis this is
# penstock:reply:<edge>            pub/sub  settle's caller     -                        -

GROUP = "engine"
WORKERS = "penstock:workers"
PROBE = "penstock:probe"
INSTALLATION = "penstock:installation"


def commands(partition: int) -> str:
    return f"penstock:{{p{partition}}}:commands"


def record(partition: int, operation: str) -> str:
    return f"penstock:{{p{partition}}}:idem:{operation}"


def open_operations(partition: int, payment: str) -> str:
    return f"penstock:{{p{partition}}}:open:{payment}"


def merchants(partition: int) -> str:
    return f"penstock:{{p{partition}}}:merchants"


def lease(partition: int) -> str:
    return f"penstock:{{p{partition}}}:lease"


def dead(partition: int) -> str:
    return f"penstock:{{p{partition}}}:dead"


def reply(edge: str) -> str:
    return f"penstock:reply:{edge}"
