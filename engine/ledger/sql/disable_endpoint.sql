-- Disable an endpoint and tell its merchant: one event, in the same transaction. Its deliveries are given up afterwards.
WITH disabled AS (
    UPDATE webhook_endpoints
    SET status = 'disabled', disabled_reason = %(reason)s, disabled_at = %(at)s, updated_at = %(at)s, notices = %(notice)s
    WHERE id = %(id)s
    RETURNING merchant
)
INSERT INTO outbox (event_id, payment, sequence, merchant, type, payload, created_at)
SELECT %(event_id)s, %(id)s, %(notice)s, merchant, %(type)s, %(payload)s, %(at)s FROM disabled
