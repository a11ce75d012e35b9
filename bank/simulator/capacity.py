"""How many connections the bank serves at once: what its limit of open files leaves beside the database and the rest.

Beyond that a client gets a 503 to its first bytes, or loses the connection soon; the process never runs out of files,
where nobody would be told anything. It is said once when it begins, and once when it is over.
"""

import logging
import resource

from bank.simulator.answer import failure

FILES_MAX = 65_536  # Above what any load here needs; some systems refuse "infinitely many".
SPARE_FILES = 48  # The listener, the event loop, the log, a file that is read, and those who are being turned away.
TURNED_AWAY_MAX = 16  # At once; more are only disconnected.
TURNED_AWAY_S = 1.0  # How long one of them may take to send its first bytes.
AGAIN = 0.9  # It is over once there is room for one in ten.
WORDS = "the bank has as many connections as it may have open files for"

logger = logging.getLogger(__name__)


def allow_many_files() -> int:
    """As many open files as this account may have, and that number: the usual 1024 is soon taken under load."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if most == resource.RLIM_INFINITY else min(FILES_MAX, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    return wanted


class Capacity:
    """Of a process with so many open files, some of which it needs itself."""

    def __init__(self, files: int, *, needed: int) -> None:
        self.connections_max = max(1, files - needed - SPARE_FILES)
        self._full = False

    def has_room(self, connections: int) -> bool:
        """Whether the newest of these connections is served."""
        if connections > self.connections_max and not self._full:
            self._full = True
            logger.error("bank_full", extra={"connections_max": self.connections_max, "error": WORDS})
        elif self._full and connections < self.connections_max * AGAIN:
            self._full = False
            logger.info("bank_has_room_again", extra={"connections": connections})
        return connections <= self.connections_max

    def has_words_for(self, connections: int) -> bool:
        """Whether one that is not served is told so."""
        return connections <= self.connections_max + TURNED_AWAY_MAX


def turned_away() -> bytes:
    """The answer to whoever is not served, as bytes of HTTP/1.1."""
    response = failure(503, WORDS)
    headers = [*response.raw_headers, (b"connection", b"close"), (b"retry-after", b"1")]
    head = b"".join(b"%s: %s\r\n" % header for header in headers)
    return b"HTTP/1.1 503 Service Unavailable\r\n" + head + b"\r\n" + bytes(response.body)
