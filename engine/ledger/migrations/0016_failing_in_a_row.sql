-- An endpoint is failing when it failed again and again for as long as the patience lasts, and never succeeded in between. Two
-- failures that far apart say nothing: between them a quiet endpoint was asked nothing.

ALTER TABLE webhook_endpoints
    ADD COLUMN failure_counted_at timestamptz,     -- the latest failure of the unbroken row that counted
    ADD COLUMN failures_counted   integer NOT NULL DEFAULT 0 CHECK (failures_counted >= 0);
COMMENT ON COLUMN webhook_endpoints.failing_since IS 'the first failure of the unbroken row';

DROP FUNCTION record_attempts(json, timestamptz);

-- Record attempts: the log, the delivery, the next of its payment, and how its endpoint fares at `as_of`. `results` is a JSON array; a
-- retry_ms of null means that the delivery ends. Returns registered endpoints that failed now, and always for `patience`, with at
-- least `failures_least` failures that counted.
CREATE FUNCTION record_attempts(results json, as_of timestamptz, patience interval, failures_least integer)
RETURNS TABLE (endpoint text)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
BEGIN
    WITH result AS MATERIALIZED (
        SELECT * FROM json_to_recordset(results) AS r (
            payment text, endpoint text, sequence integer, attempt integer, at timestamptz, duration_ms integer,
            outcome text, status integer, error text, body text, retry_ms bigint, dead_reason text)
    ), logged AS (
        INSERT INTO delivery_attempts (payment, endpoint, sequence, attempt, at, duration_ms, outcome, status, error, body)
        SELECT r.payment, r.endpoint, r.sequence, r.attempt, r.at, r.duration_ms, r.outcome, r.status, r.error, r.body
        FROM result r
        ON CONFLICT DO NOTHING
    ), ended AS (
        UPDATE deliveries d SET
            state = CASE WHEN r.outcome = 'delivered' THEN 'delivered' WHEN r.retry_ms IS NULL THEN 'dead' ELSE 'pending' END,
            claimed_until = NULL,
            due_at = CASE WHEN r.retry_ms IS NULL THEN d.due_at
                     ELSE clock_timestamp() + r.retry_ms * interval '1 ms' END,
            failures = d.failures + CASE r.outcome WHEN 'delivered' THEN 0 ELSE 1 END,
            dead_reason = r.dead_reason,
            finished_at = CASE WHEN r.retry_ms IS NULL THEN clock_timestamp() END
        FROM result r
        WHERE d.payment = r.payment AND d.endpoint IS NOT DISTINCT FROM r.endpoint AND d.sequence = r.sequence
          AND d.state IN ('pending', 'sending')
          -- A failure counts only for whoever holds the claim; that it arrived is true whoever says so.
          AND (r.outcome = 'delivered' OR (d.state = 'sending' AND d.attempts = r.attempt))
        RETURNING d.payment, d.endpoint, d.sequence, d.finished_at IS NOT NULL AS finished
    )
    UPDATE deliveries n SET due_at = clock_timestamp()
    FROM ended x JOIN webhook_endpoints e ON e.id = x.endpoint AND e.ordered
    WHERE x.finished AND n.payment = x.payment AND n.endpoint IS NOT DISTINCT FROM x.endpoint AND n.state = 'pending' AND n.failures = 0
      AND n.sequence = (SELECT min(m.sequence) FROM deliveries m
                        WHERE m.payment = x.payment AND m.endpoint IS NOT DISTINCT FROM x.endpoint AND m.sequence > x.sequence
                          AND m.state IN ('pending', 'sending'));

    -- A success ends a row of failures, and so does a pause: of an endpoint that was asked nothing, nothing is known. In the row, a
    -- failure counts once in a twentieth of `patience`, so that one bad moment of many events is one failure.
    UPDATE webhook_endpoints e SET
        failing_since = CASE WHEN f.well THEN NULL WHEN f.begins THEN as_of ELSE e.failing_since END,
        failure_counted_at = CASE WHEN f.well THEN NULL ELSE as_of END,
        failures_counted = CASE WHEN f.well THEN 0 WHEN f.begins THEN 1 ELSE e.failures_counted + 1 END
    FROM (SELECT e.id, f.well,
                 e.failing_since IS NULL OR e.failure_counted_at IS NULL OR as_of - e.failure_counted_at > patience / 2 AS begins
          FROM (SELECT r.endpoint, bool_or(r.outcome = 'delivered') AS well
                FROM json_to_recordset(results) AS r (endpoint text, outcome text) GROUP BY r.endpoint) AS f
          JOIN webhook_endpoints e ON e.id = f.endpoint AND e.kind = 'registered'
           AND CASE WHEN f.well THEN e.failing_since IS NOT NULL
                    ELSE e.failing_since IS NULL OR e.failure_counted_at IS NULL OR as_of - e.failure_counted_at >= patience / 20 END
          ORDER BY e.id
          FOR UPDATE OF e) AS f
    WHERE e.id = f.id;

    RETURN QUERY
    SELECT e.id
    FROM (SELECT DISTINCT r.endpoint FROM json_to_recordset(results) AS r (endpoint text)) AS f
    JOIN webhook_endpoints e ON e.id = f.endpoint AND e.status = 'enabled'
     AND e.failing_since <= as_of - patience AND e.failures_counted >= failures_least;
END
$$;
