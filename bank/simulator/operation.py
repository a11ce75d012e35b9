"""The four operations: header, body, identifiers, validation, one database call, answer, in the contract's order.

The rules that need the account or the transaction are in sql/0003_operations.sql, behind the row's lock.
"""

from asyncio import sleep
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import orjson
import psycopg
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from bank.simulator.answer import failure, refusal, reply, text_error
from bank.simulator.batch import Batch, Halt, Withdrawn
from bank.simulator.card import wrong_with_card_number, wrong_with_cvv
from bank.simulator.connection import read_failure, read_whole_body
from bank.simulator.decoding import BadBody, read_body
from bank.simulator.fault import AFTER, BEFORE, FaultKind, FaultOperation, FaultRules, mark_after
from bank.simulator.hang_up import HangUps, client_of, mark_executed_anyway
from bank.simulator.idempotency import idempotency_keys
from bank.simulator.identifier import read_identifier
from bank.simulator.instant import NS_PER_S, rfc3339, to_column
from bank.simulator.lanes import ConnectionWorkers, NotConnected

CURRENCY = "USD"
NO_HOLD = "auth_00000000-0000-4000-8000-000000000000"  # An identifier of the right shape that nobody ever got.
TOLD_IN_DETAIL = frozenset(
    {"card_expired", "amount_mismatch", "already_captured"}
)  # With others it is Postgres's words.
NOT_BEGUN = "failed to start transaction: failed to begin transaction"
BATCHES_UNDER_WAY_MAX = 2  # More make smaller batches; with one, a row locked elsewhere would stop everything.
Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowUp:
    """How an operation on something earlier differs from the other two."""

    operation: FaultOperation
    fields: Mapping[str, type[int] | type[str]]
    request: str
    reference: str  # The field that names what it acts on.
    reference_prefix: str
    unknown: tuple[str, str]  # The code and message for an identifier that cannot be one.
    id_field: str
    id_prefix: str
    at_field: str
    status: str


CAPTURE = FollowUp(
    operation=FaultOperation.CAPTURE,
    fields=MappingProxyType({"authorization_id": str, "amount": int}),
    request="CreateCaptureRequest",
    reference="authorization_id",
    reference_prefix="auth_",
    unknown=("authorization_not_found", "invalid authorization ID format"),
    id_field="capture_id",
    id_prefix="cap_",
    at_field="captured_at",
    status="captured",
)
VOID = FollowUp(
    operation=FaultOperation.VOID,
    fields=MappingProxyType({"authorization_id": str}),
    request="CreateVoidRequest",
    reference="authorization_id",
    reference_prefix="auth_",
    unknown=("authorization_not_found", "invalid authorization ID format"),
    id_field="void_id",
    id_prefix="void_",
    at_field="voided_at",
    status="voided",
)
REFUND = FollowUp(
    operation=FaultOperation.REFUND,
    fields=MappingProxyType({"capture_id": str, "amount": int}),
    request="CreateRefundRequest",
    reference="capture_id",
    reference_prefix="cap_",
    unknown=("capture_not_found", "invalid capture ID format"),
    id_field="refund_id",
    id_prefix="ref_",
    at_field="refunded_at",
    status="refunded",
)
AUTHORIZE_FIELDS: Mapping[str, type[int] | type[str]] = MappingProxyType(
    {"card_number": str, "cvv": str, "expiry_month": int, "expiry_year": int, "amount": int}
)


class OperationRefused(Exception):
    """The request is answered before it reached the database."""

    def __init__(self, response: Response) -> None:
        self.response = response


class Handlers:
    """Takes the requests that move money. Its methods are the endpoints."""

    def __init__(
        self,
        *,
        lanes: ConnectionWorkers,
        faults: FaultRules,
        hang_ups: HangUps,
        clock_ns: Callable[[], int],
        hold_ns: int,
    ) -> None:
        self._lanes = lanes
        self._hang_ups = hang_ups
        self.effects: Batch[tuple[object, ...], tuple[str | None, str | None]] = Batch(
            self._operate, under_way_max=BATCHES_UNDER_WAY_MAX
        )
        self._faults = faults
        self._clock_ns = clock_ns
        self._hold_ns = hold_ns

    async def authorize(self, request: Request) -> Response:
        """POST /api/v1/authorizations"""
        try:
            body = await _body(request, "CreateAuthorizationRequest", AUTHORIZE_FIELDS)
            at_ns = await self._begin(FaultOperation.AUTHORIZE, body["card_number"])
            _check_card(body)
        except OperationRefused as refused:
            return refused.response
        hold_id, expires_ns, amount = str(uuid4()), at_ns + self._hold_ns, body["amount"]
        columns = (hold_id, to_column(at_ns), to_column(expires_ns))
        ordered = (FaultOperation.AUTHORIZE, body["card_number"], body["cvv"], amount, *columns)
        refused_as = await self._effect(request, *ordered)
        answer = {
            "amount": amount,
            "authorization_id": f"auth_{hold_id}",
            "created_at": rfc3339(at_ns),
            "currency": CURRENCY,
            "expires_at": rfc3339(expires_ns),
            "status": "approved",
        }
        return refused_as or self._finish(request, FaultOperation.AUTHORIZE, body["card_number"], answer)

    async def capture(self, request: Request) -> Response:
        """POST /api/v1/captures"""
        return await self._follow_up(CAPTURE, request)

    async def void(self, request: Request) -> Response:
        """POST /api/v1/voids"""
        return await self._follow_up(VOID, request)

    async def refund(self, request: Request) -> Response:
        """POST /api/v1/refunds"""
        return await self._follow_up(REFUND, request)

    async def _follow_up(self, kind: FollowUp, request: Request) -> Response:
        try:
            body = await _body(request, kind.request, kind.fields)
            reference = read_identifier(kind.reference_prefix, body[kind.reference])
            if reference is None:
                return refusal(*kind.unknown)
            card_number = await self._card_of(reference)
            at_ns = await self._begin(kind.operation, card_number)
        except OperationRefused as refused:
            return refused.response
        own_id, amounts = str(uuid4()), (body["amount"],) if "amount" in body else ()
        refused_as = await self._effect(request, kind.operation, reference, *amounts, own_id, to_column(at_ns))
        answer: dict[str, object] = {
            kind.reference: kind.reference_prefix + reference,
            kind.id_field: kind.id_prefix + own_id,
            kind.at_field: rfc3339(at_ns),
            "status": kind.status,
        }
        if amounts:
            answer |= {"amount": body["amount"], "currency": CURRENCY}
        return refused_as or self._finish(request, kind.operation, card_number, answer)

    async def _begin(self, operation: FaultOperation, card_number: str | None) -> int:
        """The time by the bank's clock, after the faults that come before an effect; raises Refused."""
        rules = self._faults.take(BEFORE, operation, card_number)
        latency_ms = sum(rule.latency_ms for rule in rules)
        if latency_ms:
            await sleep(latency_ms / 1000)
        if any(rule.kind is FaultKind.FAIL_BEFORE for rule in rules):
            raise OperationRefused(failure(500, "Random failure injection"))
        return self._clock_ns() + sum(rule.clock_offset_s for rule in rules) * NS_PER_S

    async def _effect(self, request: Request, operation: FaultOperation, *parameters: object) -> Response | None:
        """Do it, in one transaction; None when done, else the answer that says why not."""
        client = client_of(request.scope) if self._hang_ups.cancel else None
        try:
            if client is not None and client.gone:
                raise Withdrawn
            code, detail = await self.effects.ask((operation, *parameters), client)
        except Withdrawn:
            return failure(400, f"{NOT_BEGUN}: context canceled")
        except NotConnected as error:
            return failure(400, f"{NOT_BEGUN}: {error}")
        except psycopg.Error as error:  # Whether it was committed is not known, and the contract's answer says so.
            return failure(400, f"failed to commit transaction: {error}")
        if client is not None and client.gone:
            mark_executed_anyway(request.scope)
        if code is None:
            return None
        if code == "insert_failed":
            return failure(500, "internal error")
        if code == "write_failed":
            return failure(400, f"failed to update: {detail}")
        return refusal(code, detail if code in TOLD_IN_DETAIL else None)

    async def _operate(
        self, asked: Sequence[tuple[object, ...]], halt: Halt
    ) -> Sequence[tuple[str | None, str | None]]:
        [(answered,)] = await self._lanes.ask("operate", orjson.dumps(asked).decode(), halt=halt)
        return [(code, detail) for code, detail in answered]

    def _finish(
        self, request: Request, operation: FaultOperation, card_number: str | None, answer: Mapping[str, object]
    ) -> Response:
        """The success, unless a fault for after the effect changes it."""
        kinds = mark_after(request.scope, self._faults.take(AFTER, operation, card_number))
        if FaultKind.INTERNAL_ERROR_AFTER in kinds:
            return failure(400, "failed to commit transaction: injected after the effect")
        return reply(_mismatched(answer) if FaultKind.MISMATCHED_ANSWER in kinds else answer)

    async def _card_of(self, reference: str) -> str | None:
        """The card behind a transaction, looked up only when a fault is about one."""
        if not self._faults.asks_for_cards:
            return None
        rows = await self._lanes.ask("card_of", reference)
        return str(rows[0][0]) if rows else ""  # No card at all, which no rule about a card matches.


def _mismatched(answer: Mapping[str, object]) -> Mapping[str, object]:
    """The success of another amount, or, where none is told (a void), of another hold."""
    amount = answer.get("amount")
    return {**answer, "amount": amount + 1} if isinstance(amount, int) else {**answer, "authorization_id": NO_HOLD}


async def _body(request: Request, name: str, fields: Mapping[str, type[int] | type[str]]) -> Body:
    """The header and then the body, both checked before anything of the request is looked at; raises Refused."""
    values = idempotency_keys(request.scope)
    if not values:
        raise OperationRefused(text_error(400, "Header parameter Idempotency-Key is required, but not found"))
    if len(values) > 1:
        raise OperationRefused(text_error(400, f"Expected one value for Idempotency-Key, got {len(values)}"))
    if not values[0]:
        problem = "parameter 'Idempotency-Key' is empty, can't bind its value"
        raise OperationRefused(text_error(400, f"Invalid format for parameter Idempotency-Key: {problem}"))
    try:
        return read_body(await read_whole_body(request), name, fields)
    except BadBody as error:
        problem = read_failure(request) or str(error)
        raise OperationRefused(text_error(400, f"can't decode JSON body: {problem}")) from error
    except ClientDisconnect as error:  # Half a body came and nobody is left to read this.
        raise OperationRefused(text_error(400, "can't decode JSON body: unexpected EOF")) from error


def _check_card(body: Body) -> None:
    """The rules that need no account, first failing first; raises Refused."""
    if wrong := wrong_with_card_number(body["card_number"]):
        raise OperationRefused(refusal("invalid_card", wrong))
    if wrong := wrong_with_cvv(body["cvv"]):
        raise OperationRefused(refusal("invalid_cvv", wrong))
    if body["amount"] <= 0:
        raise OperationRefused(refusal("invalid_amount"))
    if "\0" in body["card_number"]:  # Postgres cannot be asked for it, and that is one of its errors.
        raise OperationRefused(refusal("invalid_card"))
