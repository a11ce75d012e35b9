"""Query parameters: known names only, each at most once, and none of them silently ignored."""

from __future__ import annotations

from urllib.parse import parse_qsl

from edge.parsing import idempotency_key
from edge.parsing.characters import is_printable
from edge.parsing.document import shown
from edge.server.request import Request
from engine.contracts.webhooks import EVENT_TYPES, DeliveryState
from engine.domain.payment import PaymentState
from engine.errors import Rejected

LIMIT_MAX = 100
LIMIT_DEFAULT = 10
CURSOR_CHARACTERS_MAX = 512
_PARAMETERS_MAX = 16

FILTERS = ("order_id", "customer_id", "status")


def parameters(call: Request, known: tuple[str, ...]) -> dict[str, str]:
    """The parameters of this call. Raises Rejected(malformed_request), naming the one that is wrong."""
    raw: bytes = call.scope["query_string"]
    if not raw:
        return {}
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_PARAMETERS_MAX)
    except ValueError:  # also UnicodeDecodeError
        raise _malformed("The query string is not percent-encoded UTF-8, or has too many parameters.") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            use = f"Known here: {', '.join(known)}." if known else "None are known here."
            raise _malformed(f'The query parameter "{shown(name)}" is not known. {use}')
        if name in found:
            raise _malformed(f'The query parameter "{name}" was sent more than once. Send it once.')
        found[name] = value
    return found


def filters(found: dict[str, str]) -> dict[str, str | None]:
    """The filters of a list of payments; at least one is needed, and they combine."""
    chosen = {name: found.get(name) for name in FILTERS}
    if all(value is None for value in chosen.values()):
        raise _malformed(f"A filter is missing. Send at least one of: {', '.join(FILTERS)}.")
    for name in ("order_id", "customer_id"):
        value = chosen[name]
        if value is not None and not (1 <= len(value) <= 128 and is_printable(value)):
            raise _malformed(f'The query parameter "{name}" must be 1 to 128 printable characters.')
    if chosen["status"] is not None and chosen["status"] not in tuple(PaymentState):
        raise _malformed(f'The query parameter "status" must be one of: {", ".join(PaymentState)}.')
    return chosen


def limit(found: dict[str, str]) -> int:
    """How many entries a page has."""
    text = found.get("limit", str(LIMIT_DEFAULT))
    if text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= LIMIT_MAX:
        return int(text)
    raise _malformed(f'The query parameter "limit" must be an integer from 1 to {LIMIT_MAX}.')


def cursor(found: dict[str, str], name: str = "cursor") -> str | None:
    """Where a page begins. Opaque here: the engine made it and alone can read it."""
    text = found.get(name)
    if text is None or (text.isascii() and text.isprintable() and 1 <= len(text) <= CURSOR_CHARACTERS_MAX):
        return text
    raise _malformed(f'The query parameter "{name}" must be the next_cursor of an earlier page, unchanged.')


def place(found: dict[str, str]) -> str | None:
    """Where a page of events begins: `after`, which may be called `cursor` as in lists, but only once."""
    if "after" in found and "cursor" in found:
        raise _malformed('The query parameters "after" and "cursor" are the same. Send one of them.')
    return cursor(found, "cursor" if "cursor" in found else "after")


def state(found: dict[str, str]) -> str | None:
    """The state that deliveries shall be in."""
    text = found.get("status")
    if text is None or text in tuple(DeliveryState):
        return text
    raise _malformed(f'The query parameter "status" must be one of: {", ".join(DeliveryState)}.')


def types(found: dict[str, str]) -> tuple[str, ...] | None:
    """The types that events shall have."""
    if "type" not in found:
        return None
    wanted = tuple(dict.fromkeys(found["type"].split(",")))
    if EVENT_TYPES.issuperset(wanted):
        return wanted
    known = ", ".join(sorted(EVENT_TYPES))
    raise _malformed(f'The query parameter "type" must be one or more of these, separated by commas: {known}.')


def key(found: dict[str, str]) -> str:
    """The idempotency key to look an operation up by, bare or quoted as in the header."""
    text = found.get("idempotency_key")
    if text is None:
        raise _malformed('The query parameter "idempotency_key" is missing. Send the key of the operation.')
    try:
        return idempotency_key.parse(text.encode("ascii"))
    except UnicodeEncodeError:
        raise Rejected("idempotency_key_invalid", "An idempotency key has printable ASCII characters only.") from None


def _malformed(detail: str) -> Rejected:
    return Rejected("malformed_request", detail)
