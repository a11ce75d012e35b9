"""A payment with a client that openapi-python-client made: authorized, captured, listed, and one that is refused."""

import json
import sys
from uuid import uuid4

from gateway_client import AuthenticatedClient
from gateway_client.api.payments import capture_payment, create_payment, list_payments
from gateway_client.models import CardBody, Payment, PaymentBody, PaymentBodyCurrency, PaymentList, Problem

edge, order, card = sys.argv[1:]
client = AuthenticatedClient(
    base_url=edge, token="sk_local_merchant", prefix="", auth_header_name="X-API-Key", timeout=40
)


def body(order_id: str) -> PaymentBody:
    method = CardBody(type_="card", number=card, cvv="123", expiry_month=12, expiry_year=2030)
    return PaymentBody(
        amount=5000, currency=PaymentBodyCurrency.USD, order_id=order_id, customer_id="c", payment_method=method
    )


def asked() -> dict[str, str]:
    return {"idempotency_key": uuid4().hex, "prefer": "wait=30"}


made = create_payment.sync(client=client, body=body(order), **asked())
assert isinstance(made, Payment), made
captured = capture_payment.sync(made.id, client=client, **asked())
assert isinstance(captured, Payment), captured
listed = list_payments.sync(client=client, order_id=order)
assert isinstance(listed, PaymentList), listed
refused = create_payment.sync(client=client, body=body(""), **asked())
assert isinstance(refused, Problem), refused
print(
    json.dumps(
        {
            "payment": made.id,
            "status": made.status.value,
            "amount": made.amount,
            "captured": captured.status.value,
            "listed": [payment.id for payment in listed.data],
            "problem": refused.code,
            "pointers": [error.pointer for error in refused.errors],
        }
    )
)
