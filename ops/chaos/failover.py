"""The fail-over of Redis: a replica becomes the master, and the address that everybody knows leads to it from now on.

The old master is not dead. As after a partition it takes writes for a moment that the new one never hears of, and then
becomes its replica: whoever still talks to it through an old connection reads, and is told READONLY when it writes. The
address is a port that passes from one server to the other: a connection that is open stays where it is.
"""

from __future__ import annotations

import time

from redis import Redis

from ops.stack.address import any_free_port
from ops.stack.daemon import EmbeddedError
from ops.stack.embedded import EmbeddedRedis

Span = tuple[float, float]

SYNC_S = 10.0
PATIENCE_S = 5.0
LOOK_AGAIN_S = 0.02


def fail_over(old: EmbeddedRedis, heir: EmbeddedRedis, split_s: float) -> Span:
    """`heir` is started here. For `split_s` both are masters. Returns from when to when (Unix time) what `old` took is
    lost. Raises EmbeddedError and Redis' errors; then `old` may have lost its port, but only if Redis refused to move.
    """
    heir.start()
    address = old.port
    with (
        Redis(port=address, socket_timeout=PATIENCE_S) as master,
        Redis(port=heir.port, socket_timeout=PATIENCE_S) as replica,
    ):
        master.config_set("repl-diskless-sync-delay", 0)
        replica.replicaof("127.0.0.1", address)
        _synced(replica)
        began = time.time()
        replica.replicaof("NO", "ONE")
        time.sleep(split_s)
        old.move(any_free_port())
        heir.move(address)
        master.replicaof("127.0.0.1", address)
        replica.config_set("repl-diskless-sync-delay", 0)
        _synced(master)
    return began, time.time()


def _synced(replica: Redis) -> None:
    patience = time.monotonic() + SYNC_S
    while replica.info("replication").get("master_link_status") != "up":
        if time.monotonic() > patience:
            raise EmbeddedError(f"a replica did not follow its master within {SYNC_S:.0f} s")
        time.sleep(LOOK_AGAIN_S)
