-- The newest attempts to deliver a payment's events, for its timeline. Of a delivery that waits for another attempt, the last one
-- says when.
SELECT a.endpoint, a.sequence, a.attempt, a.at, a.duration_ms, a.outcome, a.status, a.error, o.event_id, o.type AS event,
       CASE WHEN d.state = 'pending' AND d.attempts = a.attempt THEN d.due_at END AS next_attempt_at
FROM delivery_attempts a
JOIN deliveries d ON d.payment = a.payment AND d.endpoint = a.endpoint AND d.sequence = a.sequence
JOIN outbox o ON o.payment = a.payment AND o.sequence = a.sequence
WHERE a.payment = %(payment)s
ORDER BY a.at DESC, a.attempt DESC LIMIT %(limit)s
