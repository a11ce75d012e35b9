-- Events as the payment path writes them, many in one commit.
INSERT INTO outbox (event_id, payment, sequence, merchant, type, payload, created_at)
SELECT e.event_id, e.payment, e.sequence, e.merchant, e.type, e.payload, now()
FROM json_to_recordset(%(events)s::json) AS e (
    event_id text, payment text, sequence integer, merchant text, type text, payload text)
