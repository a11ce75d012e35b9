"""The merchant's calls about webhook endpoints and secrets: parse, call one verb of the engine, render.

Everything that changes something by POST needs an Idempotency-Key; its answer is kept and repeated, secret and all, and
rests sealed (decision 0016).
"""

from __future__ import annotations

from edge.handlers.payments import path_id
from edge.parsing import document, idempotency_key, json_body, query, webhook_bodies
from edge.parsing.payment_bodies import validated
from edge.parsing.webhook_bodies import NothingBody
from edge.server import response
from edge.server.endpoint import Handler
from edge.server.request import Request
from edge.server.response import JSON, Response
from engine.contracts.url_policy import UrlPolicy
from engine.contracts.webhooks import EndpointCommands, KeyedRequest

_KEYS_CACHED = (JSON[0], (b"cache-control", b"public, max-age=60"))  # far below the overlap of a careful rotation


class Webhooks:
    """The endpoints for webhook endpoints. `url_policy`: where they may lead."""

    def __init__(self, book: EndpointCommands, url_policy: UrlPolicy) -> None:
        self._book, self._url_policy = book, url_policy

    async def create(self, call: Request) -> Response:
        """POST /v1/webhook-endpoints"""
        query.parameters(call, ())
        key = idempotency_key.of_call(call)
        said = document.parse(await json_body.of_call(call, required=True))
        new = webhook_bodies.new_endpoint(said, self._url_policy)
        return response.of_answered(await self._book.create(asked(call, key, "webhook-endpoints", said), new))

    async def list(self, call: Request) -> Response:
        """GET /v1/webhook-endpoints"""
        found = query.parameters(call, ("limit", "cursor"))
        body = await self._book.endpoints(call.merchant, query.limit(found), query.cursor(found))
        return Response(status=200, body=body)

    async def get(self, call: Request) -> Response:
        """GET /v1/webhook-endpoints/{endpoint}"""
        endpoint = path_id(call, "endpoint", "whe")
        query.parameters(call, ())
        return Response(status=200, body=await self._book.endpoint(call.merchant, endpoint))

    async def change(self, call: Request) -> Response:
        """PATCH /v1/webhook-endpoints/{endpoint}"""
        endpoint = path_id(call, "endpoint", "whe")
        query.parameters(call, ())
        said = document.parse(await json_body.of_call(call, required=True))
        change = webhook_bodies.change(said, self._url_policy)
        return Response(status=200, body=await self._book.change(call.merchant, endpoint, change))

    async def delete(self, call: Request) -> Response:
        """DELETE /v1/webhook-endpoints/{endpoint}"""
        endpoint = path_id(call, "endpoint", "whe")
        query.parameters(call, ())
        return Response(status=200, body=await self._book.delete(call.merchant, endpoint))

    def switch(self, *, on: bool) -> Handler:
        """POST /v1/webhook-endpoints/{endpoint}/enable, /disable"""

        async def switch(call: Request) -> Response:
            endpoint = path_id(call, "endpoint", "whe")
            key = await key_alone(call)
            path = f"webhook-endpoints/{endpoint}/{'enable' if on else 'disable'}"
            return response.of_answered(await self._book.switch(asked(call, key, path, {}), endpoint, on=on))

        return switch

    async def rotate(self, call: Request) -> Response:
        """POST /v1/webhook-endpoints/{endpoint}/rotate-secret"""
        endpoint = path_id(call, "endpoint", "whe")
        key, said = await _rotation(call)
        wanted = asked(call, key, f"webhook-endpoints/{endpoint}/rotate-secret", said)
        return response.of_answered(await self._book.rotate(wanted, endpoint, webhook_bodies.rotation(said)))

    async def rotate_default(self, call: Request) -> Response:
        """POST /v1/webhook-secret/rotate"""
        key, said = await _rotation(call)
        wanted = asked(call, key, "webhook-secret/rotate", said)
        return response.of_answered(await self._book.rotate_default(wanted, webhook_bodies.rotation(said)))

    async def default_secret(self, call: Request) -> Response:
        """GET /v1/webhook-secret"""
        query.parameters(call, ())
        return Response(status=200, body=await self._book.default_secret(call.merchant))

    async def public_keys(self, call: Request) -> Response:
        """GET /.well-known/webhook-keys/{endpoint}"""
        endpoint = path_id(call, "endpoint", "whe")
        query.parameters(call, ())
        return Response(status=200, body=await self._book.public_keys(endpoint), headers=_KEYS_CACHED)


def asked(call: Request, key: str, path: str, said: dict[str, object]) -> KeyedRequest:
    """A change that this call asks for. What was left out and what was sent as null is the same."""
    return KeyedRequest(merchant=call.merchant, key=key, path=f"POST /v1/{path}", payload=said)


async def key_alone(call: Request) -> str:
    """The key of a POST that has nothing to say."""
    query.parameters(call, ())
    key = idempotency_key.of_call(call)
    body = await json_body.of_call(call, required=False)
    if body:
        validated(NothingBody, document.parse(body))
    return key


async def _rotation(call: Request) -> tuple[str, dict[str, object]]:
    query.parameters(call, ())
    key = idempotency_key.of_call(call)
    body = await json_body.of_call(call, required=False)
    return key, document.parse(body) if body else {}
