-- What failed at an endpoint in a stretch of time becomes due again: given up, or waiting for another try. At most `most` rows;
-- with dry_run they are only counted.
WITH chosen AS (
    SELECT f.payment, f.sequence
    FROM (
        SELECT payment, sequence FROM deliveries
        WHERE endpoint = %(endpoint)s AND dead_reason IS NOT NULL AND created_at >= %(since)s AND created_at < %(until)s
        UNION ALL
        SELECT payment, sequence FROM deliveries
        WHERE endpoint = %(endpoint)s AND finished_at IS NULL AND state = 'pending' AND failures > 0
          AND created_at >= %(since)s AND created_at < %(until)s
    ) AS f
    LIMIT %(most)s
), again AS (
    UPDATE deliveries d
    SET state = 'pending', due_at = clock_timestamp(), failures = 0, finished_at = NULL, dead_reason = NULL
    FROM chosen c
    WHERE NOT %(dry_run)s::boolean AND d.payment = c.payment AND d.endpoint = %(endpoint)s AND d.sequence = c.sequence
      AND d.state IN ('dead', 'pending')
    RETURNING 1
)
SELECT count(*) FROM chosen
