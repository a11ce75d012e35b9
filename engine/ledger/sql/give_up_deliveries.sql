-- Give up what waits for endpoints that are no longer enabled; what is under way is left to end.
WITH waiting AS (
    SELECT d.payment, d.endpoint, d.sequence, e.status, e.disabled_reason
    FROM deliveries d JOIN webhook_endpoints e ON e.id = d.endpoint AND e.status <> 'enabled'
    WHERE d.endpoint = ANY(%(endpoints)s) AND d.finished_at IS NULL
      AND (d.claimed_until IS NULL OR d.claimed_until <= statement_timestamp())
    LIMIT 5000
    FOR UPDATE OF d SKIP LOCKED
)
UPDATE deliveries d SET
    state = 'dead', claimed_until = NULL, finished_at = clock_timestamp(),
    dead_reason = CASE WHEN w.status = 'deleted' THEN 'endpoint_deleted'
                       WHEN w.disabled_reason = 'gone' THEN 'endpoint_gone' ELSE 'endpoint_disabled' END
FROM waiting w
WHERE d.payment = w.payment AND d.endpoint = w.endpoint AND d.sequence = w.sequence
