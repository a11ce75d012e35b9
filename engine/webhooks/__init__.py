"""Telling merchants what happened: endpoints, the outbox, deliveries and the event feed.

Reading order: endpoint and secret (what a merchant registers), outbox and fan_out (events become deliveries),
dispatcher (which delivery is due), sender (one attempt), signer, delivery (the machine of one delivery),
delivery_log, event_feed, listener (LISTEN), idempotent_response.

Never imports streams, gateway or worker: webhooks read the ledger's outbox and nothing else.
"""
