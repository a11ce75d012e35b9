"""Dead letters and acts, described for operators. Used for the OpenAPI document only; a test holds these models and the
engine's rendering (engine/streams/dead_letter.py, engine/domain/operator_action.py) together."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from edge.openapi.payment_schemas import ANSWER

_Id = Annotated[str, Field(examples=["dl_7-1935734400000-0"])]


class FailedTrySchema(BaseModel):
    """One try that failed before the command was given up."""

    model_config = ANSWER

    at: datetime
    error: str


class DeadLetterSchema(BaseModel):
    """A command that was given up, with why, what had been tried, and when. Payment and operation are null when the
    entry did not name any."""

    model_config = ANSWER

    object: Literal["dead_letter"]
    id: _Id
    partition: int
    cause: str = Field(
        description="unreadable: no command of ours; exception: its actor failed; breach: the ledger's rows cannot be; "
        "unseen: nobody has seen its payment, and it comes back by itself when that is there",
        examples=["unreadable", "exception", "breach", "unseen"],
    )
    reason: str
    died_at: datetime
    entry_id: str | None = Field(description="the id that the entry had in the command stream")
    payment_id: str | None
    operation_id: str | None
    cut: str | None = Field(description="what is missing of the entry; then it cannot be given back")
    history: list[FailedTrySchema]


class WholeDeadLetter(DeadLetterSchema):
    """A dead letter with its entry, without the sealed card and whatever may be a card number."""

    requeueable: bool
    obstacle: str | None = Field(description="why it cannot be given back")
    entry: dict[str, str]


class DeadLetterList(BaseModel):
    """A page of dead letters, newest first."""

    model_config = ANSWER

    object: Literal["list"]
    data: list[DeadLetterSchema]
    has_more: bool
    next_cursor: str | None


class Act(BaseModel):
    """What an operator asked for, and how it ended: `result` is null until that is known."""

    model_config = ANSWER

    object: Literal["act"]
    id: str = Field(examples=["act_17"])
    act: Literal["retry", "resolve", "correct", "dead_letter.requeue", "dead_letter.drop"]
    subject: str = Field(description="the payment or the dead letter")
    payment_id: str | None
    operation_id: str | None
    reason: str
    actor: str = Field(description="the id of the operator's key, or who ran the command line")
    result: str | None
    at: datetime
    done_at: datetime | None
