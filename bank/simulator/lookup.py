"""Look-ups by identifier. They tell what was done and never what became of it, and every trouble is a 404."""

from typing import Any

import psycopg
from starlette.requests import Request
from starlette.responses import Response

from bank.simulator.answer import refusal, reply, text_error
from bank.simulator.identifier import read_identifier
from bank.simulator.instant import rfc3339_stored
from bank.simulator.lanes import ConnectionWorkers
from bank.simulator.path import BadEscape, unescape


class TransactionLookup:
    """Finds transactions. Its methods are the endpoints."""

    def __init__(self, *, lanes: ConnectionWorkers) -> None:
        self._lanes = lanes

    async def authorization(self, request: Request) -> Response:
        """GET /api/v1/authorizations/{id}: approved, also after a capture, a void or its expiry."""
        try:
            row = await self._find("AUTH_HOLD", "auth_", request)
        except BadEscape as error:
            return _bad_parameter("authorizationId", error)
        if row is None:
            return refusal("not_found", "authorization not found")
        uuid, amount, currency, _, expires_at, created_at = row
        return reply(
            {
                "amount": amount,
                "authorization_id": f"auth_{uuid}",
                "created_at": rfc3339_stored(created_at),
                "currency": currency,
                "expires_at": rfc3339_stored(expires_at),
                "status": "approved",
            }
        )

    async def capture(self, request: Request) -> Response:
        """GET /api/v1/captures/{id}: captured, also after a refund."""
        try:
            row = await self._find("CAPTURE", "cap_", request)
        except BadEscape as error:
            return _bad_parameter("captureId", error)
        if row is None:
            return refusal("not_found", "capture not found")
        uuid, amount, currency, reference, _, created_at = row
        return reply(
            {
                "amount": amount,
                "authorization_id": f"auth_{reference}",
                "capture_id": f"cap_{uuid}",
                "captured_at": rfc3339_stored(created_at),
                "currency": currency,
                "status": "captured",
            }
        )

    async def refund(self, request: Request) -> Response:
        """GET /api/v1/refunds/{id}"""
        try:
            row = await self._find("REFUND", "ref_", request)
        except BadEscape as error:
            return _bad_parameter("refundId", error)
        if row is None:
            return refusal("not_found", "refund not found")
        uuid, amount, currency, reference, _, created_at = row
        return reply(
            {
                "amount": amount,
                "capture_id": f"cap_{reference}",
                "currency": currency,
                "refund_id": f"ref_{uuid}",
                "refunded_at": rfc3339_stored(created_at),
                "status": "refunded",
            }
        )

    async def _find(self, kind: str, prefix: str, request: Request) -> tuple[Any, ...] | None:
        """(uuid, amount, currency, reference, expires at, created at); raises BadEscape."""
        uuid = read_identifier(prefix, unescape(request.path_params["id"]))
        if uuid is None:
            return None
        try:
            rows = await self._lanes.ask("find", uuid, kind)
        except psycopg.Error:
            return None
        return (uuid, *rows[0]) if rows else None


def _bad_parameter(name: str, problem: BadEscape) -> Response:
    return text_error(400, f"Invalid format for parameter {name}: error unescaping path parameter '{name}': {problem}")
