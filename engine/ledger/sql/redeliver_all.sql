-- Every event of a stretch of time that an endpoint wants becomes due there (again), whether it was told it before or not. At most
-- `most` rows; with dry_run they are only counted.
WITH chosen AS MATERIALIZED (
    SELECT o.payment, o.sequence
    FROM outbox o JOIN webhook_endpoints e ON e.id = %(endpoint)s AND e.merchant = o.merchant
    WHERE o.created_at >= %(since)s AND o.created_at < %(until)s AND (e.events IS NULL OR o.type = ANY(e.events))
      AND (e.kind = 'registered' OR EXISTS (
           SELECT FROM deliveries d WHERE d.payment = o.payment AND d.endpoint = e.id AND d.sequence = o.sequence))
    LIMIT %(most)s
), again AS (
    INSERT INTO deliveries AS d (payment, endpoint, sequence, previous_sequence, due_at)
    SELECT c.payment, e.id, c.sequence,
           CASE WHEN e.events IS NOT NULL THEN coalesce(greatest(
               lag(c.sequence) OVER (PARTITION BY c.payment ORDER BY c.sequence),
               (SELECT max(b.sequence) FROM deliveries b
                WHERE b.payment = c.payment AND b.endpoint = e.id AND b.sequence < c.sequence)), 0) END,
           clock_timestamp()
    FROM chosen c JOIN webhook_endpoints e ON e.id = %(endpoint)s
    WHERE NOT %(dry_run)s::boolean
    ORDER BY c.payment, c.sequence
    ON CONFLICT (payment, endpoint, sequence) DO UPDATE
    SET state = 'pending', due_at = clock_timestamp(), failures = 0, finished_at = NULL, dead_reason = NULL
    WHERE d.state <> 'sending'
    RETURNING 1
)
SELECT count(*) FROM chosen
