"""The merchant's calls: parse, call one verb of the engine, render.

Each method is one endpoint. Who calls is already known (`call.merchant`); what is wrong with a request is refused in
the order header, content type, JSON, fields, before the engine hears of it.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge.parsing import document, idempotency_key, json_body, payment_bodies, preference, query, stray_card
from edge.server import response
from edge.server.endpoint import Handler
from edge.server.request import Request
from edge.server.response import Response
from engine.contracts.connector import Capabilities
from engine.contracts.gateway import Commands, Queries, RequestContext, TimelineQueries
from engine.contracts.url_policy import UrlPolicy
from engine.domain.ids import is_id
from engine.domain.payment import Verb
from engine.errors import Rejected


class Payments:
    """The endpoints under /v1, over an intake, an enquiry and a timeline. `url_policy`: where webhooks may go."""

    def __init__(
        self,
        *,
        acceptor: Commands,
        queries: Queries,
        timeline: TimelineQueries,
        capabilities: Mapping[str, Capabilities],
        url_policy: UrlPolicy,
    ) -> None:
        self._acceptor, self._queries, self._timeline = acceptor, queries, timeline
        self._capabilities, self._url_policy = capabilities, url_policy

    async def create(self, call: Request) -> Response:
        """POST /v1/payments"""
        query.parameters(call, ())
        origin, wait_s = _origin(call)
        wanted = document.parse(await json_body.of_call(call, required=True))
        origin = stray_card.refuse(call, origin, wanted)
        new = payment_bodies.new_payment(wanted, self._capabilities, self._url_policy)
        return response.of_reply(await preference.waited(call, wait_s, self._acceptor.authorize(origin, new)), wait_s)

    def operate(self, verb: Verb) -> Handler:
        """POST /v1/payments/{payment}/capture, /void, /refund"""

        async def operate(call: Request) -> Response:
            payment = path_id(call, "payment", "pay")
            query.parameters(call, ())
            origin, wait_s = _origin(call)
            body = await json_body.of_call(call, required=False)
            amount = payment_bodies.amount_of(document.parse(body)) if body else None
            reply = await preference.waited(call, wait_s, self._acceptor.operate(origin, payment, verb, amount))
            return response.of_reply(reply, wait_s)

        return operate

    async def get(self, call: Request) -> Response:
        """GET /v1/payments/{payment}"""
        payment = path_id(call, "payment", "pay")
        query.parameters(call, ())
        return Response(status=200, body=await self._queries.payment(call.merchant, payment))

    async def list(self, call: Request) -> Response:
        """GET /v1/payments"""
        found = query.parameters(call, (*query.FILTERS, "limit", "cursor"))
        chosen = query.filters(found)
        body = await self._queries.payments(
            call.merchant,
            order_id=chosen["order_id"],
            customer_id=chosen["customer_id"],
            status=chosen["status"],
            limit=query.limit(found),
            cursor=query.cursor(found),
        )
        return Response(status=200, body=body)

    async def shippable(self, call: Request) -> Response:
        """GET /v1/payments/{payment}/shippable"""
        payment = path_id(call, "payment", "pay")
        query.parameters(call, ())
        return Response(status=200, body=await self._queries.shippable(call.merchant, payment))

    async def timeline(self, call: Request) -> Response:
        """GET /v1/payments/{payment}/timeline"""
        payment = path_id(call, "payment", "pay")
        query.parameters(call, ())
        return Response(status=200, body=await self._timeline.timeline(call.merchant, payment))

    async def operation(self, call: Request) -> Response:
        """GET /v1/operations/{operation}"""
        operation = path_id(call, "operation", "op")
        query.parameters(call, ())
        return Response(status=200, body=await self._queries.operation(call.merchant, operation))

    async def operations(self, call: Request) -> Response:
        """GET /v1/operations?idempotency_key="""
        found = query.parameters(call, ("idempotency_key", "limit", "cursor"))
        key, limit, cursor = query.key(found), query.limit(found), query.cursor(found)
        return Response(status=200, body=await self._queries.operations(call.merchant, key, limit, cursor))


def _origin(call: Request) -> tuple[RequestContext, int]:
    key = idempotency_key.of_call(call)
    wait_s = preference.granted_s(call)
    origin = RequestContext(
        merchant=call.merchant, key=key, wait_s=wait_s, request_id=call.request_id, traceparent=call.traceparent
    )
    return origin, wait_s


def path_id(call: Request, parameter: str, prefix: str) -> str:
    """A path's id. A malformed one is not found: nothing has such a name."""
    text = call.parameter(parameter)
    if not is_id(text, prefix):
        raise Rejected("not_found", f"There is no {parameter} with this id. Ids look like {prefix}_ and 26 characters.")
    return text
