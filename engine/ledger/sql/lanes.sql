-- Now, and every endpoint that has something unfinished: its merchant, whether it is enabled, since when its first unclaimed delivery is
-- due, and how long until then (null where all is claimed). One look into the index for each; one row with nulls where there is none.
-- A time that no program can read is told as a year from now: it harms its own delivery alone.
WITH RECURSIVE lane AS (
    (SELECT d.endpoint FROM deliveries d WHERE d.finished_at IS NULL ORDER BY d.endpoint, d.due_at LIMIT 1)
    UNION ALL
    SELECT n.endpoint
    FROM lane l CROSS JOIN LATERAL (
        SELECT d.endpoint FROM deliveries d
        WHERE d.finished_at IS NULL AND d.endpoint > l.endpoint
        ORDER BY d.endpoint, d.due_at
        LIMIT 1
    ) AS n
)
SELECT statement_timestamp(), l.endpoint, e.merchant, e.status = 'enabled', f.due_at,
       extract(epoch FROM f.due_at - clock_timestamp())::double precision
FROM (SELECT true) AS always
LEFT JOIN (lane l JOIN webhook_endpoints e ON e.id = l.endpoint) ON true
LEFT JOIN LATERAL (
    SELECT least(greatest(d.due_at, '0001-01-02'), statement_timestamp() + interval '1 year') AS due_at
    FROM deliveries d
    WHERE d.finished_at IS NULL AND d.endpoint = l.endpoint
      AND (d.claimed_until IS NULL OR d.claimed_until <= statement_timestamp())
    ORDER BY d.due_at
    LIMIT 1
) AS f ON true
