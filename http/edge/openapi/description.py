"""The calls of the API as data: path, parameters, body, answers, and what each may be refused with.

schemas.py makes the document of it; the routes that answer stand in app.py, and a test holds both together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from edge.openapi.dead_letter_schemas import Act, DeadLetterList, WholeDeadLetter
from edge.openapi.payment_schemas import OperationList, OperationSchema, PaymentList, PaymentSchema, Shippable
from edge.openapi.timeline_schemas import Timeline
from edge.parsing.characters import PRINTABLE
from edge.parsing.idempotency_key import FORM
from edge.parsing.operator_bodies import CorrectBody, ReasonBody, ResolveBody, RetryBody
from edge.parsing.payment_bodies import OperationBody, PaymentBody
from edge.parsing.preference import WAIT_S_MAX
from edge.parsing.query import CURSOR_CHARACTERS_MAX, LIMIT_DEFAULT, LIMIT_MAX

Json = dict[str, object]
"""A part of the document."""

TEXT: Json = {"type": "string"}
_STATUS: Json = {"$ref": "#/components/schemas/PaymentStatus"}
CURSOR: Json = {**TEXT, "minLength": 1, "maxLength": CURSOR_CHARACTERS_MAX, "pattern": "^[!-~]+$"}
NAME: Json = {**TEXT, "minLength": 1, "maxLength": 128, "pattern": PRINTABLE}
_WHOLE: Json = {"type": "integer"}

# What may go wrong with each kind of call, by code.
GUARDED = (
    *("api_key_missing", "api_key_invalid", "scope_missing", "merchant_disabled", "malformed_request"),
    *("expectation_failed", "rate_limited", "overloaded", "store_unavailable", "internal_error"),
)
READ = (*GUARDED, "not_found")
_WRITE = (
    *("idempotency_key_missing", "idempotency_key_invalid", "malformed_json", "payload_too_large"),
    *("request_timeout", "unsupported_media_type", "validation_failed", "idempotency_key_reused"),
    *("card_declined", "payment_failed"),
    *("acceptance_unknown", *GUARDED),
)
_CREATE = (*_WRITE, "currency_not_supported")
_OPERATE = (
    *("not_found", "transition_not_allowed", "authorization_expired", "amount_not_supported"),
    *("too_many_open_operations", *_WRITE),
)


def parameter(name: str, where: str, description: str, schema: Json, *, required: bool = False) -> Json:
    return {"name": name, "in": where, "required": required, "description": description, "schema": schema}


PAYMENT_ID = parameter("payment", "path", "The payment's id.", {**TEXT, "pattern": "^pay_"}, required=True)
_OPERATION_ID = parameter("operation", "path", "The operation's id.", {**TEXT, "pattern": "^op_"}, required=True)
KEY = parameter(
    "Idempotency-Key",
    "header",
    "Names this attempt: repeat it and nothing happens twice. 1 to 255 printable ASCII characters, bare or quoted.",
    {**TEXT, "minLength": 1, "pattern": FORM, "examples": ["order-1001-authorize"]},
    required=True,
)
PREFER = parameter(
    "Prefer", "header", f"`wait=N` waits up to N seconds ({WAIT_S_MAX} at most) for the outcome.", dict(TEXT)
)
_LIST = (
    parameter("order_id", "query", "Payments of this order.", NAME),
    parameter("customer_id", "query", "Payments of this customer.", NAME),
    parameter(
        "status",
        "query",
        "Payments in this state. At least one filter is required.",
        {"$ref": "#/components/schemas/PaymentStatus"},
    ),
    parameter("limit", "query", "Page size.", {**_WHOLE, "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}),
    parameter("cursor", "query", "`next_cursor` of the page before.", CURSOR),
)
_BY_KEY = (
    parameter("idempotency_key", "query", "The key that was sent with it.", {**TEXT, "pattern": FORM}, required=True),
    *_LIST[-2:],
)
_POST = (PAYMENT_ID, KEY, PREFER)
_DONE: Mapping[int, type[BaseModel] | None] = {200: PaymentSchema, 202: PaymentSchema}
_LETTER = parameter("letter", "path", "The dead letter's id.", {**TEXT, "pattern": "^dl_"}, required=True)
PAGED = _LIST[-2:]
_ACT = (
    *("idempotency_key_missing", "idempotency_key_invalid", "malformed_json", "payload_too_large"),
    *("request_timeout", "unsupported_media_type", "validation_failed", "idempotency_key_reused", "act_refused", *READ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """One call of the API."""

    path: str
    method: str
    name: str
    summary: str
    parameters: tuple[Json, ...] = ()
    body: type[BaseModel] | None = None
    answers: Mapping[int, type[BaseModel] | None]  # None: plain text
    codes: tuple[str, ...] = ()
    scope: str = "merchant"
    tag: str
    done: str = ""  # what a 200 means, where the model of the answer does not say it

    @property
    def waits(self) -> bool:
        """Whether it honours Prefer: wait."""
        return PREFER in self.parameters


CALLS: tuple[Description, ...] = (
    Description(
        path="/v1/payments",
        method="post",
        name="createPayment",
        summary="Create and authorize a payment; a sale with `capture: true`",
        parameters=(KEY, PREFER),
        body=PaymentBody,
        answers={201: PaymentSchema, 202: PaymentSchema},
        codes=_CREATE,
        tag="payments",
    ),
    Description(
        path="/v1/payments",
        method="get",
        name="listPayments",
        summary="Payments of an order or a customer, newest first",
        parameters=_LIST,
        answers={200: PaymentList},
        codes=GUARDED,
        tag="payments",
    ),
    Description(
        path="/v1/payments/{payment}",
        method="get",
        name="getPayment",
        done="The payment as it is now.",
        summary="The receipt of a payment",
        parameters=(PAYMENT_ID,),
        answers={200: PaymentSchema},
        codes=READ,
        tag="payments",
    ),
    *(
        Description(
            path=f"/v1/payments/{{payment}}/{verb}",
            method="post",
            name=f"{verb}Payment",
            summary=summary,
            done=done,
            parameters=_POST,
            body=OperationBody,
            answers=_DONE,
            codes=_OPERATE,
            tag="payments",
        )
        for verb, summary, done in (
            ("capture", "Take the money that was authorized", "The bank has captured the money."),
            ("void", "Let an authorization go", "The hold is released."),
            ("refund", "Give captured money back", "The bank has given the money back."),
        )
    ),
    Description(
        path="/v1/payments/{payment}/shippable",
        method="get",
        name="isShippable",
        summary="Whether the goods may leave",
        parameters=(PAYMENT_ID,),
        answers={200: Shippable},
        codes=READ,
        tag="payments",
    ),
    Description(
        path="/v1/payments/{payment}/timeline",
        method="get",
        name="getTimeline",
        summary="What happened to a payment: commands, bank attempts, transitions, acts, webhooks; oldest first",
        parameters=(PAYMENT_ID,),
        answers={200: Timeline},
        codes=READ,
        tag="payments",
    ),
    Description(
        path="/v1/operations/{operation}",
        method="get",
        name="getOperation",
        done="The operation as it is now.",
        summary="One operation",
        parameters=(_OPERATION_ID,),
        answers={200: OperationSchema},
        codes=READ,
        tag="operations",
    ),
    Description(
        path="/v1/operations",
        method="get",
        name="findOperations",
        summary="Operations by their idempotency key, newest first",
        parameters=_BY_KEY,
        answers={200: OperationList},
        codes=(*GUARDED, "idempotency_key_invalid"),
        tag="operations",
    ),
    Description(
        path="/v1/dead-letters",
        method="get",
        name="listDeadLetters",
        summary="Commands that were given up, newest first",
        parameters=PAGED,
        answers={200: DeadLetterList},
        codes=GUARDED,
        scope="operator",
        tag="operators",
    ),
    Description(
        path="/v1/dead-letters/{letter}",
        method="get",
        name="getDeadLetter",
        summary="One of them, with its entry",
        parameters=(_LETTER,),
        answers={200: WholeDeadLetter},
        codes=READ,
        scope="operator",
        tag="operators",
    ),
    Description(
        path="/v1/dead-letters/{letter}/requeue",
        method="post",
        name="requeueDeadLetter",
        done="Its entry is among the commands again; the act says when and by whom.",
        summary="Give its entry back to the commands",
        parameters=(_LETTER, KEY),
        body=ReasonBody,
        answers={200: Act},
        codes=_ACT,
        scope="operator",
        tag="operators",
    ),
    Description(
        path="/v1/dead-letters/{letter}/drop",
        method="post",
        name="dropDeadLetter",
        done="It is thrown away; the act says when and by whom.",
        summary="Throw it away; the key of a command that never began is free again",
        parameters=(_LETTER, KEY),
        body=ReasonBody,
        answers={200: Act},
        codes=_ACT,
        scope="operator",
        tag="operators",
    ),
    Description(
        path="/v1/payments/{payment}/retry",
        method="post",
        name="retryPayment",
        done="The act and its result: the bank was asked again, or why it was not.",
        summary="Have the bank asked again about an unanswered operation",
        parameters=_POST,
        body=RetryBody,
        answers={200: Act, 202: Act},
        codes=_ACT,
        scope="operator",
        tag="operators",
    ),
    Description(
        path="/v1/payments/{payment}/resolve",
        method="post",
        name="resolvePayment",
        done="The act and its result: the payment is as the bank's statement says.",
        summary="Say what the bank did, by its statement, where only a person can tell",
        parameters=_POST,
        body=ResolveBody,
        answers={200: Act, 202: Act},
        codes=_ACT,
        scope="operator",
        tag="operators",
    ),
    Description(
        path="/v1/payments/{payment}/correct",
        method="post",
        name="correctPayment",
        done="The act and its result: the bank's id is replaced.",
        summary="Replace the bank's id that an operator gave, while nothing is built on it",
        parameters=_POST,
        body=CorrectBody,
        answers={200: Act, 202: Act},
        codes=_ACT,
        scope="operator",
        tag="operators",
    ),
)
