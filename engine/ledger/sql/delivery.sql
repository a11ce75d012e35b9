-- One delivery to one endpoint, with its newest attempts.
SELECT d.payment, d.endpoint, d.sequence, d.previous_sequence, d.state, d.dead_reason, d.attempts, d.due_at, d.created_at,
       d.finished_at, o.event_id, o.type, l.log
FROM deliveries d
JOIN outbox o ON o.payment = d.payment AND o.sequence = d.sequence
CROSS JOIN LATERAL (
    SELECT coalesce(json_agg(a.*), '[]') AS log
    FROM (SELECT a.attempt, a.at, a.outcome, a.status, a.duration_ms, a.error, a.body FROM delivery_attempts a
          WHERE a.payment = d.payment AND a.endpoint = d.endpoint AND a.sequence = d.sequence
          ORDER BY a.attempt DESC LIMIT %(attempts)s) AS a
) AS l
WHERE d.payment = %(payment)s AND d.endpoint = %(endpoint)s AND d.sequence = %(sequence)s
