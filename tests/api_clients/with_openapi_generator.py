"""A payment with a client that openapi-generator made: authorized, captured, listed, and one that is refused."""

import json
import sys
from uuid import uuid4

import gateway_client
from gateway_client.exceptions import UnprocessableEntityException

edge, order, card = sys.argv[1:]
configuration = gateway_client.Configuration(host=edge, api_key={"ApiKey": "sk_local_merchant"})


def body(order_id: str) -> gateway_client.PaymentBody:
    method = gateway_client.CardBody(type="card", number=card, cvv="123", expiry_month=12, expiry_year=2030)
    usual = {"amount": 5000, "currency": "USD", "customer_id": "c", "payment_method": method}
    return gateway_client.PaymentBody.model_construct(order_id=order_id, **usual)


def asked() -> dict[str, str]:
    return {"idempotency_key": uuid4().hex, "prefer": "wait=30"}


with gateway_client.ApiClient(configuration) as client:
    payments = gateway_client.PaymentsApi(client)
    made = payments.create_payment(payment_body=gateway_client.PaymentBody(**vars(body(order))), **asked())
    captured = payments.capture_payment(made.id, **asked())
    listed = payments.list_payments(order_id=order)
    try:
        payments.create_payment(payment_body=body(""), **asked())
        raise SystemExit("an order without a name was taken")
    except UnprocessableEntityException as refusal:
        refused = json.loads(refusal.body)
print(
    json.dumps(
        {
            "payment": made.id,
            "status": made.status,
            "amount": made.amount,
            "captured": captured.status,
            "listed": [payment.id for payment in listed.data],
            "problem": refused["code"],
            "pointers": [error["pointer"] for error in refused["errors"]],
        }
    )
)
