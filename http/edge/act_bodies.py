"""Bodies of what operators ask for, field by field; the rules of bodies.py hold here too."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

from edge.bodies import STRICT

REASON_CHARACTERS_MAX = 200


def _said(text: str) -> str:
    if not (text.strip() and text.isprintable()):
        raise ValueError
    return text


_Reason = Annotated[str, Field(max_length=REASON_CHARACTERS_MAX), AfterValidator(_said)]
_WHY = f"a string of 1 to {REASON_CHARACTERS_MAX} printable characters that says why, for the audit"
_WHICH = "the id of one of the payment's operations (op_...); leave it out for the first that is not answered"
_Operation = Annotated[str, Field(pattern="^op_[0-9A-Z]{26}$")] | None
_Word = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_said)] | None


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
    outcome: Literal["approved", "refused"] = Field(
        description='"approved" or "refused": what the bank did, by its own statement'
    )
    reference: _Word = Field(
        default=None,
        description="the bank's id of what it approved, 1 to 128 printable characters; needed for all but a void",
        examples=["cap_5d0f"],
    )
    auth_code: _Word = Field(
        default=None, description="the authorization code, 1 to 128 printable characters, where the bank gave one"
    )
