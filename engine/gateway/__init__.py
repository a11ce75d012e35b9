"""The engine's side of an HTTP call: accept a command, read payments, carry out an operator's request.

Reading order: acceptance (POST: idempotency, fingerprints, the durable accept), queries (GET, from Redis and the
ledger), accepted_work (what only the streams know yet), timeline, operator_actions (dead letters, retry, resolve).

Implements the Protocols of contracts/gateway.py for the edge.

Never imports worker or webhooks: the three programs know nothing of each other.
"""
