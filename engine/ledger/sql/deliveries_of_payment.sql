-- One page of a payment's deliveries to all endpoints of its merchant, newest first, each with its newest attempts.
SELECT d.payment, d.endpoint, d.sequence, d.previous_sequence, d.state, d.dead_reason, d.attempts, d.due_at, d.created_at,
       d.finished_at, o.event_id, o.type, l.log
FROM (
    SELECT d.* FROM deliveries d
    JOIN webhook_endpoints e ON e.id = d.endpoint AND e.merchant = %(merchant)s
    WHERE d.payment = %(payment)s
      AND (%(before_sequence)s::integer IS NULL
           OR (d.sequence, d.endpoint) < (%(before_sequence)s, %(before_endpoint)s))
    ORDER BY d.sequence DESC, d.endpoint DESC
    LIMIT %(limit)s
) AS d
JOIN outbox o ON o.payment = d.payment AND o.sequence = d.sequence
CROSS JOIN LATERAL (
    SELECT coalesce(json_agg(a.*), '[]') AS log
    FROM (SELECT a.attempt, a.at, a.outcome, a.status, a.duration_ms, a.error, a.body FROM delivery_attempts a
          WHERE a.payment = d.payment AND a.endpoint = d.endpoint AND a.sequence = d.sequence
          ORDER BY a.attempt DESC LIMIT %(attempts)s) AS a
) AS l
ORDER BY d.sequence DESC, d.endpoint DESC
