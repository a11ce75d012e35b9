"""The merchant's calls: parse, call one verb of the engine, render.

Each method is one endpoint. Who calls is already known (`call.merchant`); what is wrong with a request is refused in
the order header, content type, JSON, fields, before the engine hears of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge import answer, bodies, document, idempotency_key, preference, query
from edge.answer import Answer
from edge.call import Call
from edge.endpoint import Handler
from engine.errors import Rejected
from engine.identity import is_id
from engine.payment import Verb
from engine.ports import Capabilities
from engine.request import Accepting, Enquiring, Origin


class Payments:
    """The endpoints under /v1, over an intake and an enquiry."""

    def __init__(self, *, intake: Accepting, enquiry: Enquiring, capabilities: Mapping[str, Capabilities]) -> None:
        self._intake, self._enquiry, self._capabilities = intake, enquiry, capabilities

    async def create(self, call: Call) -> Answer:
        """POST /v1/payments"""
        query.parameters(call, ())
        origin, wait_s = _origin(call)
        new = bodies.new_payment(document.parse(await _json(call, required=True)), self._capabilities)
        return answer.of_reply(await self._intake.authorize(origin, new), wait_s)

    def operate(self, verb: Verb) -> Handler:
        """POST /v1/payments/{payment}/capture, /void, /refund"""

        async def operate(call: Call) -> Answer:
            payment = _id(call, "payment", "pay")
            query.parameters(call, ())
            origin, wait_s = _origin(call)
            body = await _json(call, required=False)
            amount = bodies.amount_of(document.parse(body)) if body else None
            return answer.of_reply(await self._intake.operate(origin, payment, verb, amount), wait_s)

        return operate

    async def get(self, call: Call) -> Answer:
        """GET /v1/payments/{payment}"""
        payment = _id(call, "payment", "pay")
        query.parameters(call, ())
        return Answer(status=200, body=await self._enquiry.payment(call.merchant, payment))

    async def list(self, call: Call) -> Answer:
        """GET /v1/payments"""
        found = query.parameters(call, (*query.FILTERS, "limit", "cursor"))
        chosen = query.filters(found)
        body = await self._enquiry.payments(
            call.merchant,
            order_id=chosen["order_id"],
            customer_id=chosen["customer_id"],
            status=chosen["status"],
            limit=query.limit(found),
            cursor=query.cursor(found),
        )
        return Answer(status=200, body=body)

    async def shippable(self, call: Call) -> Answer:
        """GET /v1/payments/{payment}/shippable"""
        payment = _id(call, "payment", "pay")
        query.parameters(call, ())
        return Answer(status=200, body=await self._enquiry.shippable(call.merchant, payment))

    async def operation(self, call: Call) -> Answer:
        """GET /v1/operations/{operation}"""
        operation = _id(call, "operation", "op")
        query.parameters(call, ())
        return Answer(status=200, body=await self._enquiry.operation(call.merchant, operation))

    async def operations(self, call: Call) -> Answer:
        """GET /v1/operations?idempotency_key="""
        key = query.key(query.parameters(call, ("idempotency_key",)))
        return Answer(status=200, body=await self._enquiry.operations(call.merchant, key))


def _origin(call: Call) -> tuple[Origin, int]:
    key = idempotency_key.of_call(call)
    wait_s = preference.wait_s(call.headers.get(b"prefer"))
    if wait_s and call.place is not None and not call.place.wait():
        wait_s = 0
    origin = Origin(
        merchant=call.merchant, key=key, wait_s=wait_s, request_id=call.request_id, traceparent=call.traceparent
    )
    return origin, wait_s


def _id(call: Call, parameter: str, prefix: str) -> str:
    """A path's id. A malformed one is not found: nothing has such a name."""
    text = call.parameter(parameter)
    if not is_id(text, prefix):
        raise Rejected("not_found", f"There is no {parameter} with this id. Ids look like {prefix}_ and 26 characters.")
    return text


async def _json(call: Call, *, required: bool) -> bytes:
    """The body, declared as JSON. An optional one may be empty, and then needs no declaration."""
    content_type = call.headers.get(b"content-type", b"")
    declared = content_type == b"application/json" or _is_json(content_type)
    encoded = call.headers.get(b"content-encoding", b"identity") != b"identity"
    if required and (not declared or encoded):
        raise _unsupported(encoded)
    body = await call.body()
    if body and (not declared or encoded):
        raise _unsupported(encoded)
    return body


def _is_json(content_type: bytes) -> bool:
    media_type, _, parameters = content_type.decode("latin-1").lower().partition(";")
    charset = parameters.replace(" ", "").replace('"', "")
    return media_type.strip() == "application/json" and charset in ("", "charset=utf-8")


def _unsupported(encoded: bool) -> Rejected:
    if encoded:
        return Rejected("unsupported_media_type", "The body is compressed. Send it without Content-Encoding.")
    return Rejected(
        "unsupported_media_type", "The body is not declared as JSON in UTF-8. Send Content-Type: application/json."
    )
