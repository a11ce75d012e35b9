"""The control API: how a test or a demonstration makes this bank misbehave. Off unless asked for.

It is ours, not the contract's, and chaos never touches it.
"""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import Request
from starlette.responses import Response

from bank.simulator.answer import reply
from bank.simulator.chaos import FaultProfile
from bank.simulator.fault import FaultKind, FaultOperation, FaultRules, Rule
from bank.simulator.hang_up import HangUps
from bank.simulator.lanes import ConnectionWorkers

LATENCY_MS_MAX = 600_000
CLOCK_OFFSET_S_MAX = 10 * 365 * 86_400  # Ten years either way keeps every time within what a row can hold.

LatencyMs = Annotated[int, Field(ge=0, le=LATENCY_MS_MAX)]


class Strict(BaseModel):
    """No unknown field, no number in a string."""

    model_config = ConfigDict(strict=True, extra="forbid")


class FaultBody(Strict):
    """POST /control/faults. `times` null or absent is always; no operation and no card is every request."""

    kind: Annotated[FaultKind, Field(strict=False)]
    operation: Annotated[FaultOperation, Field(strict=False)] | None = None
    card_number: Annotated[str, Field(min_length=1)] | None = None
    times: Annotated[int, Field(ge=1)] | None = None
    latency_ms: LatencyMs | None = None
    clock_offset_s: Annotated[int, Field(ge=-CLOCK_OFFSET_S_MAX, le=CLOCK_OFFSET_S_MAX)] | None = None

    @model_validator(mode="after")
    def _measure_fits_kind(self) -> Self:
        for kind, name, value in (
            (FaultKind.LATENCY, "latency_ms", self.latency_ms),
            (FaultKind.CLOCK_OFFSET, "clock_offset_s", self.clock_offset_s),
        ):
            if (self.kind is kind) is (value is None):
                raise ValueError(f"{name} goes with kind {kind} and no other")
        return self


class ChaosBody(Strict):
    """PUT /control/chaos: all three, so that what holds afterwards is what was sent."""

    failure_rate: Annotated[float, Field(ge=0, le=1)]
    min_latency_ms: LatencyMs
    max_latency_ms: LatencyMs

    @model_validator(mode="after")
    def _range_is_a_range(self) -> Self:
        if self.max_latency_ms < self.min_latency_ms:
            raise ValueError("max_latency_ms must not be below min_latency_ms")
        return self


class HangUpsBody(Strict):
    """PUT /control/hang-ups: both, so that what holds afterwards is what was sent."""

    cancel: bool
    lose_key: bool


class Controls:
    """The knobs. Its methods are the endpoints."""

    def __init__(
        self, *, faults: FaultRules, weather: FaultProfile, hang_ups: HangUps, lanes: ConnectionWorkers
    ) -> None:
        self._faults = faults
        self._weather = weather
        self._hang_ups = hang_ups
        self._lanes = lanes

    async def add_fault(self, request: Request) -> Response:
        """POST /control/faults: 201 with the rule and its id."""
        try:
            body = FaultBody.model_validate_json(await request.body())
        except ValidationError as error:
            return _bad_body(error)
        rule = Rule(
            id=next(self._faults.ids),
            kind=body.kind,
            operation=body.operation,
            card_number=body.card_number,
            times=body.times,
            latency_ms=body.latency_ms or 0,
            clock_offset_s=body.clock_offset_s or 0,
        )
        self._faults.rules.append(rule)
        return reply(_shown(rule), 201)

    async def list_faults(self, request: Request) -> Response:
        """GET /control/faults: the rules still in force, with the times each has left."""
        return reply({"faults": [_shown(rule) for rule in self._faults.rules]})

    async def clear_faults(self, request: Request) -> Response:
        """DELETE /control/faults"""
        cleared = len(self._faults.rules)
        self._faults.rules.clear()
        return reply({"cleared": cleared})

    async def show_chaos(self, request: Request) -> Response:
        """GET /control/chaos"""
        weather = self._weather
        return reply(
            {
                "failure_rate": weather.failure_rate,
                "min_latency_ms": weather.min_latency_ms,
                "max_latency_ms": weather.max_latency_ms,
            }
        )

    async def set_chaos(self, request: Request) -> Response:
        """PUT /control/chaos: from the next request on."""
        try:
            body = ChaosBody.model_validate_json(await request.body())
        except ValidationError as error:
            return _bad_body(error)
        self._weather.failure_rate = body.failure_rate
        self._weather.min_latency_ms = body.min_latency_ms
        self._weather.max_latency_ms = body.max_latency_ms
        return await self.show_chaos(request)

    async def show_hang_ups(self, request: Request) -> Response:
        """GET /control/hang-ups"""
        return reply({"cancel": self._hang_ups.cancel, "lose_key": self._hang_ups.lose_key})

    async def set_hang_ups(self, request: Request) -> Response:
        """PUT /control/hang-ups: for every client that hangs up from now on."""
        try:
            body = HangUpsBody.model_validate_json(await request.body())
        except ValidationError as error:
            return _bad_body(error)
        self._hang_ups.cancel, self._hang_ups.lose_key = body.cancel, body.lose_key
        return await self.show_hang_ups(request)

    async def ledger(self, request: Request) -> Response:
        """GET /control/ledger: counts and cents, summed in the database."""
        kinds = await self._lanes.ask("ledger_transactions")
        [(accounts, balance, available, keys)] = await self._lanes.ask("ledger_accounts")
        transactions = {
            kind: {"count": count, "amount_cents": amount, "active": active} for kind, count, amount, active in kinds
        }
        return reply(
            {
                "transactions": transactions,
                "accounts": accounts,
                "balance_cents": balance,
                "available_balance_cents": available,
                "idempotency_keys": keys,
            }
        )


def _shown(rule: Rule) -> dict[str, object]:
    return {
        "id": rule.id,
        "kind": rule.kind,
        "operation": rule.operation,
        "card_number": rule.card_number,
        "times": rule.times,
        "latency_ms": rule.latency_ms,
        "clock_offset_s": rule.clock_offset_s,
    }


def _bad_body(error: ValidationError) -> Response:
    problems = [f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors(include_url=False)]
    return reply({"error": "invalid_request", "message": "; ".join(problems)}, 400)
