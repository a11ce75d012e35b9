"""Chaos: every request sleeps a while and then, now and then, fails before anything has happened.

It stands behind the look-up of idempotency keys, so a replay is immediate and never fails, and in front of the
routes, so unknown paths and look-ups suffer too. A failure injected here never follows an effect.
"""

import secrets
from asyncio import sleep
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from bank.simulator.answer import failure

FAILURE_PARTS = 1_000_000
RandomBelow = Callable[[int], int]


@dataclass(slots=True, kw_only=True)
class FaultProfile:
    """How bad it is now. The control API may change it while the bank runs."""

    failure_rate: float
    min_latency_ms: int
    max_latency_ms: int
    random_below: RandomBelow = secrets.randbelow

    def latency_ms(self) -> int:
        """A whole number in [minimum, maximum), the minimum when they are equal."""
        spread_ms = self.max_latency_ms - self.min_latency_ms
        return self.min_latency_ms + (self.random_below(spread_ms) if spread_ms > 0 else 0)

    def fails(self) -> bool:
        """Draw whether this request fails."""
        return self.failure_rate > 0 and self.random_below(FAILURE_PARTS) < self.failure_rate * FAILURE_PARTS


class Chaos:
    """The ASGI layer that makes the weather felt. Paths are spared by prefix, so `/healthz` is spared too."""

    def __init__(self, app: ASGIApp, *, weather: FaultProfile, spared: tuple[str, ...]) -> None:
        self.app = app
        self.weather = weather
        self.spared = spared

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith(self.spared):
            latency_ms = self.weather.latency_ms()
            if latency_ms > 0:
                await sleep(latency_ms / 1000)
            if self.weather.fails():
                await failure(500, "Random failure injection")(scope, receive, send)
                return
        await self.app(scope, receive, send)
