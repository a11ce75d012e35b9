"""Bodies of what operators ask for, field by field; the rules of payment_bodies.py hold here too."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

from edge.parsing.characters import SAYING_SOMETHING
from edge.parsing.payment_bodies import STRICT
from engine.domain import timestamp

REASON_CHARACTERS_MAX = 200
WORDS = ("outcome", "reference", "auth_code", "bank_at", "expires_at")  # what a resolve says about the bank


_Reason = Annotated[str, Field(max_length=REASON_CHARACTERS_MAX, pattern=SAYING_SOMETHING)]
_WHY = f"a string of 1 to {REASON_CHARACTERS_MAX} printable characters that says why, for the audit"
_WHICH = "the id of one of the payment's operations (op_...); leave it out for the first that is not answered"
_Operation = Annotated[str, Field(pattern="^op_[0-9A-Z]{26}$")] | None
_Word = Annotated[str, Field(max_length=128, pattern=SAYING_SOMETHING)] | None


def _moment(text: str) -> str:
    return timestamp.parse(text).isoformat()


_Moment = Annotated[str, AfterValidator(_moment), Field(json_schema_extra={"format": "date-time"})] | None
_WHEN = f"a date and time with its offset (RFC 3339), as in {timestamp.EXAMPLE}"


class ReasonBody(BaseModel):
    """POST /v1/dead-letters/{id}/requeue and /drop."""

    model_config = STRICT

    reason: _Reason = Field(description=_WHY, examples=["statement of 2031-05-04, line 12"])


class RetryBody(ReasonBody):
    """POST /v1/payments/{id}/retry."""

    operation_id: _Operation = Field(default=None, description=_WHICH)


class ResolveBody(ReasonBody):
    """POST /v1/payments/{id}/resolve."""

    operation_id: _Operation = Field(default=None, description=_WHICH)
    outcome: Literal["approved", "refused", "captured"] = Field(
        description=(
            '"approved" or "refused": what the bank did, by its own statement; "captured": the hold that was to be '
            "released had been captured there, and reference is the id of that capture"
        )
    )
    reference: _Word = Field(
        default=None,
        description=(
            "the bank's id of what it approved, 1 to 128 printable characters; needed for all but a void. It is "
            "believed only if no other payment has it and the bank, asked for it, shows what this operation asked for"
        ),
        examples=["cap_5d0f"],
    )
    auth_code: _Word = Field(
        default=None, description="the authorization code, 1 to 128 printable characters, where the bank gave one"
    )
    bank_at: _Moment = Field(default=None, description=f"{_WHEN}: when the bank did it, by its statement")
    expires_at: _Moment = Field(default=None, description=f"{_WHEN}: until when an approved hold lasts")


class CorrectBody(ReasonBody):
    """POST /v1/payments/{id}/correct."""

    operation_id: _Operation = Field(
        default=None, description="the id of one of the payment's operations (op_...); leave it out for the latest"
    )
    reference: Annotated[str, Field(max_length=128, pattern=SAYING_SOMETHING)] = Field(
        description="the bank's id that is right, 1 to 128 printable characters; proven as that of a resolve",
        examples=["cap_5d0f"],
    )
