"""From what a stranger sends to values that the engine believes: bodies, query strings and headers.

Reading order: document (bytes to one JSON object, strictly), json_body, payment_bodies, operator_bodies,
webhook_bodies, stray_card (card numbers where none belongs), idempotency_key, preference, query.

Every refusal names the field and says what is expected. Nothing here calls the engine.

Never imports handlers or openapi.
"""
