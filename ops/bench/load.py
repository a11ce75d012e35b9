"""What the bench offers and how it counts: the load, its arrivals by the clock, its requests as bytes, percentiles.

Open loop, without coordinated omission: arrivals are due at equal distances, whether or not the gateway keeps up, and
a latency begins when its arrival was due. Pure; generator.py does it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

ACCEPTED = "202"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to offer: `rate_per_s` arrivals for `warmup_s` that do not count, then for `seconds` that do."""

    url: str
    api_key: str
    run: str  # prefix of the idempotency keys: `<run>-<nine digits of the arrival>`
    rate_per_s: float
    warmup_s: float
    seconds: float
    cards: list[str]
    cvv: str = "123"
    connections_max: int = 512  # requests in flight; beyond, arrivals wait and are late

    @property
    def warmups(self) -> int:
        return round(self.rate_per_s * self.warmup_s)

    @property
    def arrivals(self) -> int:
        return self.warmups + round(self.rate_per_s * self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the generator saw of the arrivals that count. Latencies in ms, from the moment each was due."""

    began_at: float  # wall clock of arrival 0; arrival i was due i / rate later
    accepted: int
    accepted_in_all: int  # with the warm-up's
    accepts_per_s: float
    accept_ms: dict[str, float]
    errors: dict[str, int]  # by status, or what happened instead of an answer
    late_ms: dict[str, float]  # from due to sent where a connection was free: the generator's own doing
    waited_for_connection: int  # arrivals that were due while all connections were taken
    connections: int
    cpu_s: float


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of sorted values: the smallest that `share` of them do not exceed; NaN of none."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(len(ordered) * share - 1e-9) - 1)]


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p99 and p99.9 (and the worst) of values in any order, to a hundredth."""
    ordered = sorted(values)
    shares = {"p50": 0.5, "p99": 0.99, "p99_9": 0.999, "max": 1.0}
    return {name: round(percentile(ordered, share), 2) for name, share in shares.items()}


def due_s(arrival: int, rate_per_s: float) -> float:
    """When an arrival is due, in seconds after arrival 0."""
    return arrival / rate_per_s


def arrivals_due(elapsed_s: float, rate_per_s: float, arrivals: int) -> int:
    """How many arrivals are due by now, of `arrivals` in all."""
    return max(0, min(arrivals, math.floor(elapsed_s * rate_per_s + 1e-9) + 1))


def request_template(load: Load, card: str) -> bytes:
    """A whole request with two places for the nine digits of the arrival: the key and the order."""
    to = urlsplit(load.url)
    body = (
        b'{"amount":5000,"currency":"USD","order_id":"order-%%09d","customer_id":"customer-%s","payment_method":'
        b'{"type":"card","number":"%s","cvv":"%s","expiry_month":12,"expiry_year":2030}}'
    ) % (card[-6:].encode(), card.encode(), load.cvv.encode())
    head = (
        f"POST {to.path.rstrip('/')}/v1/payments HTTP/1.1\r\nHost: {to.netloc}\r\nX-API-Key: {load.api_key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body % 0)}\r\nIdempotency-Key: {load.run}-"
    )
    return head.replace("%", "%%").encode() + b"%09d\r\n\r\n" + body


def answer_length(received: bytes) -> int | None:
    """How long the answer that begins here will be, or None while its head is not whole."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    start = received.find(b"content-length: ", 0, end)
    if start < 0:  # Others than uvicorn write it in other letters.
        start = received[:end].lower().find(b"content-length: ")
    if start < 0:
        return end + 4
    return end + 4 + int(received[start + 16 : received.index(b"\r\n", start)])
