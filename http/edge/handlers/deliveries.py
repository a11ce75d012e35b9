"""The merchant's calls about deliveries and events: the log, redelivering, the feed. Parse, call one verb, render."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from edge.handlers.payments import path_id
from edge.handlers.webhooks import asked, key_alone
from edge.parsing import document, idempotency_key, json_body, preference, query, webhook_bodies
from edge.server import response
from edge.server.request import Request
from edge.server.response import JSON, Response
from engine.contracts.gateway import Queries
from engine.contracts.webhooks import DeliveryQueries, EventQueries, FeedPage, LogPage
from engine.domain.ids import event_of_delivery
from engine.errors import Rejected


class Deliveries:
    """The endpoints for deliveries, over their log; `queries` knows which payments there are."""

    def __init__(self, log: DeliveryQueries, queries: Queries, clock: Callable[[], datetime]) -> None:
        self._log, self._queries, self._clock = log, queries, clock

    async def of_endpoint(self, call: Request) -> Response:
        """GET /v1/webhook-endpoints/{endpoint}/deliveries"""
        endpoint = path_id(call, "endpoint", "whe")
        found = query.parameters(call, ("status", "limit", "cursor"))
        page = LogPage(state=query.state(found), limit=query.limit(found), cursor=query.cursor(found))
        return Response(status=200, body=await self._log.of_endpoint(call.merchant, endpoint, page))

    async def of_payment(self, call: Request) -> Response:
        """GET /v1/payments/{payment}/deliveries"""
        payment = path_id(call, "payment", "pay")
        found = query.parameters(call, ("limit", "cursor"))
        page = LogPage(state=None, limit=query.limit(found), cursor=query.cursor(found))
        await self._queries.payment(call.merchant, payment)
        return Response(status=200, body=await self._log.of_payment(call.merchant, payment, page))

    async def get(self, call: Request) -> Response:
        """GET /v1/webhook-endpoints/{endpoint}/deliveries/{delivery}"""
        endpoint, delivery = path_id(call, "endpoint", "whe"), _delivery(call)
        query.parameters(call, ())
        return Response(status=200, body=await self._log.delivery(call.merchant, endpoint, delivery))

    async def redeliver(self, call: Request) -> Response:
        """POST /v1/webhook-endpoints/{endpoint}/deliveries/{delivery}/redeliver"""
        endpoint, delivery = path_id(call, "endpoint", "whe"), _delivery(call)
        key = await key_alone(call)
        path = f"webhook-endpoints/{endpoint}/deliveries/{delivery}/redeliver"
        return response.of_answered(await self._log.redeliver(asked(call, key, path, {}), endpoint, delivery))

    async def redeliver_range(self, call: Request) -> Response:
        """POST /v1/webhook-endpoints/{endpoint}/redeliver"""
        endpoint = path_id(call, "endpoint", "whe")
        query.parameters(call, ())
        said = document.parse(await json_body.of_call(call, required=True))
        wanted, dry_run = webhook_bodies.redelivery(said, self._clock())
        if dry_run:
            return Response(status=200, body=await self._log.count_range(call.merchant, endpoint, wanted))
        key = idempotency_key.of_call(call)
        path = f"webhook-endpoints/{endpoint}/redeliver"
        return response.of_answered(await self._log.redeliver_range(asked(call, key, path, said), endpoint, wanted))


class Events:
    """The endpoint of the feed."""

    def __init__(self, feed: EventQueries) -> None:
        self._feed = feed

    async def list(self, call: Request) -> Response:
        """GET /v1/events"""
        found = query.parameters(call, ("after", "cursor", "type", "limit"))
        types, limit, after = query.types(found), query.limit(found), query.place(found)
        wait_s = preference.granted_s(call)
        page = FeedPage(types=types, limit=limit, after=after, wait_s=wait_s)
        headers = (*JSON, (b"preference-applied", b"wait=%d" % wait_s)) if wait_s else JSON
        body = await preference.waited(call, wait_s, self._feed.events(call.merchant, page))
        return Response(status=200, body=body, headers=headers)


def _delivery(call: Request) -> str:
    text = call.parameter("delivery")
    if event_of_delivery(text) is None:
        raise Rejected("not_found", "There is no delivery with this id. Ids look like dlv_pay_..._2.")
    return text
