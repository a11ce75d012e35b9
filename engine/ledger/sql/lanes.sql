-- Now, and every endpoint that has something unfinished: whether it is enabled, since when its first unclaimed delivery is due, and
-- how long until then (null where all is claimed). One look into the index for each; one row with nulls where there is none.
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
SELECT statement_timestamp(), l.endpoint, e.status = 'enabled', f.due_at,
       extract(epoch FROM f.due_at - clock_timestamp())::double precision
FROM (SELECT true) AS always
LEFT JOIN (lane l JOIN webhook_endpoints e ON e.id = l.endpoint) ON true
LEFT JOIN LATERAL (
    SELECT d.due_at FROM deliveries d
    WHERE d.finished_at IS NULL AND d.endpoint = l.endpoint
      AND (d.claimed_until IS NULL OR d.claimed_until <= statement_timestamp())
    ORDER BY d.due_at
    LIMIT 1
) AS f ON true
