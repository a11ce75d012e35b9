"""The operator's calls: dead letters, and acts on payments. Like the merchant's: parse, call one verb, render.

Who calls is known (`call.actor`, an operator's key). Everything that changes something needs an Idempotency-Key, in the
scope of the key's merchant (keys without one share a scope), and a reason.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from edge.parsing import document, idempotency_key, json_body, payment_bodies, preference, query
from edge.parsing.operator_bodies import WORDS, CorrectBody, ReasonBody, ResolveBody, RetryBody
from edge.server import response
from edge.server.request import Request
from edge.server.response import Response
from engine.contracts.gateway import ActionRequest, OperatorCommands
from engine.domain.ids import is_id
from engine.errors import Rejected

Body = TypeVar("Body", bound=ReasonBody)


class Operators:
    """The endpoints of operator scope, over a desk."""

    def __init__(self, operator_actions: OperatorCommands) -> None:
        self._operator_actions = operator_actions

    async def dead_letters(self, call: Request) -> Response:
        """GET /v1/dead-letters"""
        found = query.parameters(call, ("limit", "cursor"))
        return Response(
            status=200, body=await self._operator_actions.dead_letters(query.limit(found), query.cursor(found))
        )

    async def dead_letter(self, call: Request) -> Response:
        """GET /v1/dead-letters/{letter}"""
        query.parameters(call, ())
        return Response(status=200, body=await self._operator_actions.dead_letter(call.parameter("letter")))

    async def requeue(self, call: Request) -> Response:
        """POST /v1/dead-letters/{letter}/requeue"""
        asked, _ = await _asked(call, ReasonBody)
        return response.of_reply(
            await self._operator_actions.requeue(asked, call.parameter("letter")), int(asked.wait_s)
        )

    async def drop(self, call: Request) -> Response:
        """POST /v1/dead-letters/{letter}/drop"""
        asked, _ = await _asked(call, ReasonBody)
        return response.of_reply(await self._operator_actions.drop(asked, call.parameter("letter")), int(asked.wait_s))

    async def retry(self, call: Request) -> Response:
        """POST /v1/payments/{payment}/retry"""
        payment = _payment(call)
        asked, body = await _asked(call, RetryBody)
        asked = replace(asked, operation=body.operation_id)
        return response.of_reply(await self._operator_actions.retry(asked, payment), int(asked.wait_s))

    async def resolve(self, call: Request) -> Response:
        """POST /v1/payments/{payment}/resolve"""
        payment = _payment(call)
        asked, body = await _asked(call, ResolveBody)
        word = {name: value for name in WORDS if (value := getattr(body, name)) is not None}
        asked = replace(asked, operation=body.operation_id, word=word)
        return response.of_reply(await self._operator_actions.resolve(asked, payment), int(asked.wait_s))

    async def correct(self, call: Request) -> Response:
        """POST /v1/payments/{payment}/correct"""
        payment = _payment(call)
        asked, body = await _asked(call, CorrectBody)
        asked = replace(asked, operation=body.operation_id, word={"reference": body.reference})
        return response.of_reply(await self._operator_actions.correct(asked, payment), int(asked.wait_s))


def _payment(call: Request) -> str:
    payment = call.parameter("payment")
    if not is_id(payment, "pay"):
        raise Rejected("not_found", "There is no payment with this id. Ids look like pay_ and 26 characters.")
    return payment


async def _asked(call: Request, model: type[Body]) -> tuple[ActionRequest, Body]:
    """Who wants something done, why and under which key, and the body that says the rest."""
    query.parameters(call, ())
    key = idempotency_key.of_call(call)
    wait_s = preference.wait_s(call.headers.get(b"prefer"))
    body = payment_bodies.validated(model, document.parse(await json_body.of_call(call, required=True)))
    asked = ActionRequest(
        reason=body.reason,
        actor=call.actor,
        merchant=call.merchant,
        key=key,
        request_id=call.request_id,
        wait_s=wait_s,
    )
    return asked, body
