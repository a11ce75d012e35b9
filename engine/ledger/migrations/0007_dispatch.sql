-- What a dispatcher does to deliveries, each in one round trip: make them of new events, claim them, record what came of them.
--
-- Plans are pinned to index look-ups, as in 0002_commit.sql. A delivery is looked up by its payment: conditions on its endpoint are
-- written so (IS NOT DISTINCT FROM, `state IN` for `finished_at IS NULL`) that no index of endpoints is tempted, which looks as good
-- while the table is empty. Fan-outs and claims do not wait for the disk: losing the last of them with the machine repeats some
-- deliveries, which every receiver must bear anyway, and never skips one.

-- The endpoint of all payments of a merchant whose webhook_url has this origin: its id is a function of both.
CREATE FUNCTION payment_url_endpoint(merchant text, origin text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT 'whe_0' || upper(left(encode(sha256(convert_to(merchant || ' ' || origin, 'UTF8')), 'hex'), 25))
$$;
CREATE FUNCTION origin_of(url text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT lower(substring(url FROM '^[^:/?#]+://[^/?#]+'))
$$;

-- New events into deliveries, in the order of the outbox, up to `events_max`. One row: how many events were handled (null while
-- somebody else is at it), which endpoints have something due now, whether writers ring, since when nothing moved, and the
-- transactions under way (from `oldest` up to `next`).
CREATE FUNCTION fan_out_events(events_max integer)
RETURNS TABLE (handled integer, endpoints text[], asleep boolean, idle_ms integer, oldest xid8, next xid8)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    reached fan_out%ROWTYPE;
    last    record;
    filled  text[];
BEGIN
    -- A statement of its own: the next one must see everything that the last to hold this lock has written.
    SELECT f.* INTO reached FROM fan_out f FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN QUERY SELECT NULL::integer, '{}'::text[], f.asleep,
                            (extract(epoch FROM clock_timestamp() - f.moved_at) * 1000)::integer,
                            pg_snapshot_xmin(pg_current_snapshot()), pg_snapshot_xmax(pg_current_snapshot())
                     FROM fan_out f;
        RETURN;
    END IF;
    WITH news AS MATERIALIZED (
        SELECT o.xid, o.id, o.payment, o.sequence, o.merchant, o.type
        FROM outbox o
        WHERE (o.xid, o.id) > (reached.xid, reached.id) AND o.xid < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY o.xid, o.id
        LIMIT events_max
    ), addressed AS MATERIALIZED (
        SELECT n.payment, n.sequence, n.merchant, origin_of(p.webhook_url) AS origin
        FROM news n JOIN payments p ON p.id = n.payment
        WHERE p.webhook_url IS NOT NULL
    ), housed AS (
        INSERT INTO webhook_endpoints (id, merchant, kind, url)
        SELECT DISTINCT payment_url_endpoint(a.merchant, a.origin), a.merchant, 'payment_url', a.origin
        FROM addressed a JOIN merchants m ON m.id = a.merchant
        WHERE a.origin IS NOT NULL
        ON CONFLICT DO NOTHING
    ), wanted AS (
        SELECT n.payment, n.sequence, e.id AS endpoint, e.events IS NOT NULL AS filtered
        FROM news n JOIN webhook_endpoints e
          ON e.merchant = n.merchant AND e.kind = 'registered' AND e.status = 'enabled'
         AND (e.events IS NULL OR n.type = ANY (e.events))
        UNION ALL
        SELECT a.payment, a.sequence, payment_url_endpoint(a.merchant, a.origin), false
        FROM addressed a JOIN merchants m ON m.id = a.merchant
        WHERE a.origin IS NOT NULL
    ), made AS (
        INSERT INTO deliveries (payment, endpoint, sequence, previous_sequence, due_at)
        SELECT w.payment, w.endpoint, w.sequence,
               CASE WHEN w.filtered THEN coalesce(
                   lag(w.sequence) OVER (PARTITION BY w.payment, w.endpoint ORDER BY w.sequence),
                   (SELECT max(d.sequence) FROM deliveries d
                    WHERE d.payment = w.payment AND d.endpoint IS NOT DISTINCT FROM w.endpoint AND d.sequence < w.sequence),
                   0) END,
               clock_timestamp()
        FROM wanted w
        ON CONFLICT DO NOTHING
        RETURNING endpoint
    )
    SELECT (SELECT count(*)::integer FROM news) AS handled,
           (SELECT n.xid FROM news n ORDER BY n.xid DESC, n.id DESC LIMIT 1) AS xid,
           (SELECT n.id FROM news n ORDER BY n.xid DESC, n.id DESC LIMIT 1) AS id,
           ARRAY(SELECT DISTINCT m.endpoint FROM made m) AS endpoints
    INTO last;
    IF last.handled > 0 THEN
        UPDATE fan_out f SET xid = last.xid, id = last.id, moved_at = clock_timestamp(), asleep = false;
        reached.asleep := false;
        reached.moved_at := clock_timestamp();
        PERFORM set_config('synchronous_commit', 'off', true);
        IF cardinality(last.endpoints) > 0 THEN
            -- Other dispatchers need not look everywhere; a message has 8,000 bytes at most.
            PERFORM pg_notify('penstock_deliveries', CASE WHEN cardinality(last.endpoints) <= 200
                                                     THEN array_to_string(last.endpoints, ' ') ELSE '' END);
        END IF;
    END IF;
    RETURN QUERY SELECT last.handled, last.endpoints, reached.asleep,
                        (extract(epoch FROM clock_timestamp() - reached.moved_at) * 1000)::integer,
                        pg_snapshot_xmin(pg_current_snapshot()), pg_snapshot_xmax(pg_current_snapshot());
END
$$;

-- Claim what is due, endpoint by endpoint, at most places[i] of lanes[i], none that was due before since[i]: the caller knows that
-- there are none, and we need not read through the index's many dead entries. A claimed row is `sending` until the lease lapses. A
-- row with a null attempt was put off: its endpoint is ordered, and an earlier event of its payment is unfinished.
--
CREATE FUNCTION claim_deliveries(lanes text[], places integer[], since timestamptz[], lease_ms integer)
RETURNS TABLE (
    endpoint text, payment text, sequence integer, attempt integer, failures integer, previous_sequence integer,
    merchant text, url text, by_payment boolean, ordered boolean, retry_schedule integer[], event_id text, type text, payload text,
    created_at timestamptz, traceparent text)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    held record;
BEGIN
    -- A statement of its own: what is judged below is judged after these rows are ours.
    SELECT array_agg(d.payment) AS payments, array_agg(d.endpoint) AS endpoints, array_agg(d.sequence) AS sequences
    INTO held
    FROM unnest(lanes, places, since) AS lane (endpoint, places, since)
    CROSS JOIN LATERAL (
        SELECT d.payment, d.endpoint, d.sequence
        FROM deliveries d
        WHERE d.endpoint = lane.endpoint AND d.due_at >= lane.since AND d.due_at <= statement_timestamp()
          AND d.finished_at IS NULL AND (d.claimed_until IS NULL OR d.claimed_until <= statement_timestamp())
        ORDER BY d.due_at
        LIMIT lane.places
        FOR UPDATE OF d SKIP LOCKED
    ) AS d;
    IF held.payments IS NULL THEN
        RETURN;
    END IF;
    PERFORM set_config('synchronous_commit', 'off', true);
    RETURN QUERY
    WITH judged AS (
        SELECT h.payment, h.endpoint, h.sequence, earlier.until AS put_off_until
        FROM unnest(held.payments, held.endpoints, held.sequences) AS h (payment, endpoint, sequence)
        JOIN webhook_endpoints e ON e.id = h.endpoint AND e.status = 'enabled'
        LEFT JOIN LATERAL (
            -- One that is under way may end at any moment, and releases us then; should that be missed, we look again soon.
            SELECT greatest(CASE b.state WHEN 'pending' THEN b.due_at END, clock_timestamp() + interval '250 ms') AS until
            FROM deliveries b
            WHERE e.ordered AND b.payment = h.payment AND b.endpoint IS NOT DISTINCT FROM h.endpoint AND b.sequence < h.sequence
              AND b.state IN ('pending', 'sending')
            ORDER BY b.sequence
            LIMIT 1
        ) AS earlier ON true
    ), claimed AS (
        UPDATE deliveries d SET
            state = CASE WHEN j.put_off_until IS NULL THEN 'sending' ELSE 'pending' END,
            claimed_until = CASE WHEN j.put_off_until IS NULL THEN clock_timestamp() + lease_ms * interval '1 ms' END,
            due_at = coalesce(j.put_off_until, d.due_at),
            attempts = d.attempts + CASE WHEN j.put_off_until IS NULL THEN 1 ELSE 0 END
        FROM judged j
        WHERE d.payment = j.payment AND d.endpoint IS NOT DISTINCT FROM j.endpoint AND d.sequence = j.sequence
        RETURNING d.endpoint, d.payment, d.sequence, CASE d.state WHEN 'sending' THEN d.attempts END AS attempt, d.failures,
                  d.previous_sequence
    )
    SELECT c.endpoint, c.payment, c.sequence, c.attempt, c.failures, c.previous_sequence, e.merchant,
           coalesce(p.webhook_url, e.url), e.kind = 'payment_url', e.ordered, e.retry_schedule, o.event_id, o.type, o.payload,
           o.created_at, a.traceparent
    FROM claimed c
    JOIN webhook_endpoints e ON e.id = c.endpoint
    LEFT JOIN outbox o ON o.payment = c.payment AND o.sequence = c.sequence AND c.attempt IS NOT NULL
    LEFT JOIN payments p ON p.id = c.payment AND e.kind = 'payment_url'
    LEFT JOIN transitions t ON t.payment = o.payment AND t.sequence = o.sequence
    LEFT JOIN operations a ON a.id = t.operation;
END
$$;

-- Record attempts: the log, the delivery, the next of its payment, and how its endpoint fares. `results` is a JSON array; a
-- retry_ms of null means that the delivery ends. Returns registered endpoints that failed now, and always since `patience`.
CREATE FUNCTION record_attempts(results json, patience timestamptz) RETURNS TABLE (endpoint text)
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

    UPDATE webhook_endpoints e SET failing_since = CASE WHEN f.well THEN NULL ELSE clock_timestamp() END
    FROM (SELECT e.id, f.well
          FROM (SELECT r.endpoint, bool_or(r.outcome = 'delivered') AS well
                FROM json_to_recordset(results) AS r (endpoint text, outcome text) GROUP BY r.endpoint) AS f
          JOIN webhook_endpoints e ON e.id = f.endpoint AND e.kind = 'registered' AND (e.failing_since IS NULL) <> f.well
          ORDER BY e.id
          FOR UPDATE OF e) AS f
    WHERE e.id = f.id;

    RETURN QUERY
    SELECT e.id
    FROM (SELECT DISTINCT r.endpoint FROM json_to_recordset(results) AS r (endpoint text)) AS f
    JOIN webhook_endpoints e ON e.id = f.endpoint AND e.status = 'enabled' AND e.failing_since < patience;
END
$$;
