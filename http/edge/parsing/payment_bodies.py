"""Bodies: what a client may say, field by field, and how it becomes the engine's words.

One pydantic model per body. A field's description completes "must be ...": it is what the OpenAPI document says and
also what a client is told who got it wrong, so the two cannot differ. The client's value is never repeated (I9).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from edge.parsing.characters import PRINTABLE, WEB_ADDRESS, WITHOUT_NUL
from edge.parsing.document import pointer
from engine.contracts.connector import Capabilities
from engine.contracts.gateway import NewPayment
from engine.contracts.url_policy import UrlPolicy
from engine.domain.money import AMOUNT_MAX, CURRENCIES, Money
from engine.domain.payment import Card, Details, details_of
from engine.errors import FieldError, Rejected

METADATA_PAIRS_MAX = 50
# As JSON, escapes and all: a payment goes into events and webhooks, whose bodies stay below 20 KB.
METADATA_BYTES_MAX = 8 * 1024
DESCRIPTION_BYTES_MAX = 2000  # 500 characters of any script; only escapes take more
DESCRIPTION_CHARACTERS_MAX = 500
URL_CHARACTERS_MAX = 2048
ERRORS_SHOWN_MAX = 20  # a body with five thousand wrong fields does not deserve an answer of a megabyte
METHOD_TYPES = ("card", "token", "upi", "wallet", "crypto")  # API.md; which of them work is the connectors' business

Body = TypeVar("Body", bound=BaseModel)

_DOUBLED = bytes.maketrans(b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))
STRICT = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


def _known(currency: str) -> str:
    if currency not in CURRENCIES:
        raise ValueError
    return currency


def _passing_luhn(number: str) -> str:
    """The check digit of ISO/IEC 7812: from the right, every second digit is doubled and its digits are added."""
    digits = number.encode()
    plain, doubled = digits[-1::-2], digits[-2::-2].translate(_DOUBLED)
    if (sum(plain) - 48 * len(plain) + sum(doubled)) % 10:
        raise ValueError
    return number


def _small(metadata: dict[str, str]) -> dict[str, str]:
    if metadata and len(orjson.dumps(metadata)) > METADATA_BYTES_MAX:
        raise ValueError
    return metadata


def _short(description: str) -> str:
    if len(orjson.dumps(description)) - len('""') > DESCRIPTION_BYTES_MAX:
        raise ValueError
    return description


def _web_address(url: str) -> str:
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise ValueError
    parts = urlsplit(url)  # raises ValueError for bad brackets, its port for a bad port
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.port == 0:
        raise ValueError
    return url


_Name = Annotated[str, Field(min_length=1, max_length=128, pattern=PRINTABLE)]
_Url = Annotated[
    str,
    Field(max_length=URL_CHARACTERS_MAX, json_schema_extra={"pattern": WEB_ADDRESS}),
    AfterValidator(_web_address),
]
_Text = Annotated[str, Field(json_schema_extra={"pattern": WITHOUT_NUL})]
Description = Annotated[
    str,
    Field(max_length=DESCRIPTION_CHARACTERS_MAX, json_schema_extra={"pattern": WITHOUT_NUL}),
    AfterValidator(_short),
]
DESCRIPTION = (
    f"a string of at most {DESCRIPTION_CHARACTERS_MAX} characters, {DESCRIPTION_BYTES_MAX} bytes as JSON with its "
    "escapes, or null"
)


class CardBody(BaseModel):
    """A card. Whether it has expired is for the bank to say."""

    model_config = STRICT

    type: Literal["card"] = Field(description='"card"')
    number: Annotated[str, Field(pattern="^[0-9]{13,19}$"), AfterValidator(_passing_luhn)] = Field(
        description="a string of 13 to 19 digits, without spaces or dashes, whose check digit (Luhn) is right",
        examples=["4111111111111111"],
        json_schema_extra={"x-check-digit": "luhn"},
    )
    cvv: str = Field(pattern="^[0-9]{3,4}$", description="a string of 3 or 4 digits", examples=["123"])
    expiry_month: int = Field(ge=1, le=12, description="an integer from 1 to 12", examples=[12])
    expiry_year: int = Field(
        ge=2000, le=2099, description="an integer of four digits, from 2000 to 2099", examples=[2030]
    )


class PaymentBody(BaseModel):
    """POST /v1/payments."""

    model_config = STRICT

    amount: int = Field(
        ge=1,
        le=AMOUNT_MAX,
        description=f"an integer from 1 to {AMOUNT_MAX} in minor units, without quotes, decimal point or exponent "
        "(5000 is 50.00 in USD)",
        examples=[5000],
    )
    currency: Annotated[str, AfterValidator(_known)] = Field(
        description='an active ISO 4217 code in capitals, as in "USD"', examples=["USD"]
    )
    order_id: _Name = Field(description="a string of 1 to 128 printable characters", examples=["order-1001"])
    customer_id: _Name = Field(description="a string of 1 to 128 printable characters", examples=["customer-7"])
    payment_method: CardBody = Field(description="exactly one payment method object with a `type`")
    capture: bool = Field(default=False, description="true or false; true captures at once (a sale)")
    description: Description | None = Field(default=None, description=DESCRIPTION)
    statement_descriptor: str | None = Field(
        default=None,
        pattern="^[A-Za-z0-9 .,&/+-]{1,22}$",
        description="a string of 1 to 22 letters, digits, spaces and . , & / + -, or null",
        examples=["FICMART ORDER 1001"],
    )
    metadata: Annotated[dict[str, _Text], AfterValidator(_small)] = Field(
        default_factory=dict,
        max_length=METADATA_PAIRS_MAX,
        description=f"an object of at most {METADATA_PAIRS_MAX} names with string values, "
        f"{METADATA_BYTES_MAX} bytes as JSON in all, with its escapes",
        json_schema_extra={"propertyNames": {"pattern": WITHOUT_NUL}},
        examples=[{"cart": "77"}],
    )
    webhook_url: _Url | None = Field(
        default=None,
        description=f"an http or https URL in ASCII of at most {URL_CHARACTERS_MAX} characters, without user name "
        "or password, or null",
        examples=["https://shop.example/hooks"],
    )


class OperationBody(BaseModel):
    """POST /v1/payments/{id}/capture, /void and /refund; may be left out altogether."""

    model_config = STRICT

    amount: int | None = Field(
        default=None,
        ge=1,
        le=AMOUNT_MAX,
        description=f"an integer from 1 to {AMOUNT_MAX} in minor units, without quotes, decimal point or exponent; "
        "leave it out for the full amount",
        examples=[5000],
    )


def new_payment(
    document: dict[str, object], capabilities: Mapping[str, Capabilities], url_policy: UrlPolicy
) -> NewPayment:
    """What the engine shall create. Raises Rejected(validation_failed or currency_not_supported) with every field."""
    try:
        body = PaymentBody.model_validate(document)
    except ValidationError as error:
        raise _invalid(PaymentBody, error, _method_error(document, capabilities)) from None
    able = capabilities.get(body.payment_method.type)
    if able is None:
        raise refused([FieldError(pointer="/payment_method/type", detail=_unsupported(capabilities))])
    if body.currency not in able.currencies:
        detail = f"must be one of {', '.join(sorted(able.currencies))} for this payment method"
        raise Rejected(
            "currency_not_supported",
            f"The connector for {body.payment_method.type} payments does not take this currency: /currency {detail}.",
            errors=(FieldError(pointer="/currency", detail=detail),),
        )
    if body.webhook_url is not None and (refusal := url_policy.refusal_of_url(body.webhook_url)) is not None:
        raise refused([FieldError(pointer="/webhook_url", detail=refusal)])
    method = body.payment_method
    return NewPayment(
        money=Money(amount=body.amount, currency=body.currency),
        details=Details(**details_of(body)),
        card=Card(
            number=method.number, cvv=method.cvv, expiry_month=method.expiry_month, expiry_year=method.expiry_year
        ),
        sale=body.capture,
    )


def amount_of(document: dict[str, object]) -> int | None:
    """The amount of a capture, void or refund; None for the full one. Raises Rejected(validation_failed)."""
    return validated(OperationBody, document).amount


def validated(model: type[Body], document: dict[str, object]) -> Body:
    """The body this document is. Raises Rejected(validation_failed) with every wrong field."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise _invalid(model, error, None) from None


def _unsupported(capabilities: Mapping[str, Capabilities]) -> str:
    return f"is not supported by any connector here; use one of: {', '.join(sorted(capabilities)) or '(none)'}"


def _method_error(document: dict[str, object], capabilities: Mapping[str, Capabilities]) -> FieldError | None:
    """A payment method of another kind than card is one error, not one for each of its unknown fields."""
    method = document.get("payment_method")
    if not isinstance(method, dict) or method.get("type") == "card":
        return None
    if "type" not in method:
        return FieldError(pointer="/payment_method/type", detail="is required")
    known = method["type"] in METHOD_TYPES
    detail = _unsupported(capabilities) if known else f"must be one of: {', '.join(METHOD_TYPES)}"
    return FieldError(pointer="/payment_method/type", detail=detail)


def _invalid(model: type[BaseModel], error: ValidationError, method_error: FieldError | None) -> Rejected:
    """Every wrong field once, in words made of the model's descriptions; pydantic's own would show the input."""
    found: dict[str, FieldError] = {}
    for line in error.errors(include_url=False, include_context=False, include_input=False):
        path = line["loc"]
        if method_error is not None and path[0] == "payment_method":
            found[method_error.pointer] = method_error
            continue
        where = pointer(path)
        found.setdefault(where, FieldError(pointer=where, detail=_advice(model, path, line["type"])))
    return refused(list(found.values()))


def _advice(model: type[BaseModel], path: tuple[str | int, ...], kind: str) -> str:
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        return "is not a known field; leave it out"
    field = None
    for step in path:
        inner = model.model_fields.get(str(step))
        if inner is None:
            break
        field = inner
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            model = field.annotation
    return f"must be {field.description}" if field is not None else "is not valid"


def refused(errors: list[FieldError]) -> Rejected:
    """The refusal of a body with these wrong fields."""
    first = f"{errors[0].pointer} {errors[0].detail}"
    others = len(errors) - 1
    detail = f"{first}." if not others else f"{first}; {others} more field(s) are wrong, see `errors`."
    return Rejected("validation_failed", detail, errors=tuple(errors[:ERRORS_SHOWN_MAX]))
