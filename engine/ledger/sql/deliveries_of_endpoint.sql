-- One page of an endpoint's deliveries, newest first, from a position on, each with its newest attempts. Never prepared: a state
-- that is rare has an index of its own, which a plan for all states would not use.
SELECT d.payment, d.endpoint, d.sequence, d.previous_sequence, d.state, d.dead_reason, d.attempts, d.due_at, d.created_at,
       d.finished_at, o.event_id, o.type, l.log
FROM (
    SELECT * FROM deliveries
    WHERE endpoint = %(endpoint)s
      AND (%(state)s::text IS NULL OR state = %(state)s)
      AND (%(state)s::text IS DISTINCT FROM 'dead' OR dead_reason IS NOT NULL)
      AND (%(before_at)s::timestamptz IS NULL
           OR (created_at, payment, sequence) < (%(before_at)s, %(before_payment)s, %(before_sequence)s))
      AND (%(before_at)s::timestamptz IS NULL OR created_at <= %(before_at)s)
    ORDER BY created_at DESC, payment DESC, sequence DESC
    LIMIT %(limit)s
) AS d
JOIN outbox o ON o.payment = d.payment AND o.sequence = d.sequence
CROSS JOIN LATERAL (
    SELECT coalesce(json_agg(a.*), '[]') AS log
    FROM (SELECT a.attempt, a.at, a.outcome, a.status, a.duration_ms, a.error, a.body FROM delivery_attempts a
          WHERE a.payment = d.payment AND a.endpoint = d.endpoint AND a.sequence = d.sequence
          ORDER BY a.attempt DESC LIMIT %(attempts)s) AS a
) AS l
ORDER BY d.created_at DESC, d.payment DESC, d.sequence DESC
