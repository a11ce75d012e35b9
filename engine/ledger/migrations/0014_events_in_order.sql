-- The order of events is the order of their ids, and marks tell how far it is final.
--
-- An id is drawn before its transaction commits, so a smaller id may become visible after a larger one. Whoever inserts events
-- therefore holds a mark while it is under way: a shared advisory lock whose key is the last id that was drawn before its own. A reader
-- takes, in this order: (a) `high`, the last id drawn; (b) `low`, the lowest mark held; (c) rows up to the smaller of both, in a new
-- snapshot. No event below that can still appear:
--
--   * An event that is committed later, or that (c) does not see, had not released its mark at (b) or took it after (b), because a mark
--     is released after its commit became visible, and (c) looks after (b).
--   * Mark held at (b): its ids are larger than the mark, and so larger than `low`.
--   * Mark taken after (b): its ids were drawn after (a), and are larger than `high`.
--
-- That rests on three properties: a statement's BEFORE trigger fires before the statement draws its ids; the sequence keeps no ids for
-- sessions (CACHE 1); readers see each statement's own snapshot (READ COMMITTED, checked below). Neither ids nor marks are of the
-- cluster: a dump into another one changes nothing, and transactions in other databases, or without events, hold nobody back.

-- 'PS' in the highest 16 bits, an id in the others. Other advisory locks of ours are exclusive ones.
CREATE FUNCTION event_mark(id bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$ SELECT (20563::bigint << 48) | id $$;

-- One mark for each transaction, taken by its first insert, is enough: it is the lowest. The setting remembers it, and like the mark it
-- is undone with a savepoint; the transaction's id in it keeps a setting that was left behind from being believed.
CREATE FUNCTION mark_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('penstock.marked', true) IS DISTINCT FROM pg_current_xact_id()::text THEN
        PERFORM pg_advisory_xact_lock_shared(event_mark(s.last_value - (NOT s.is_called)::integer)) FROM outbox_id_seq s;
        PERFORM set_config('penstock.marked', pg_current_xact_id()::text, true);
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER outbox_marks BEFORE INSERT ON outbox FOR EACH STATEMENT EXECUTE FUNCTION mark_events();

-- (a) and (b): rows up to the smaller of both are final for the next statement of the caller. `low` is null when no mark is held.
CREATE FUNCTION events_readable(OUT high bigint, OUT low bigint) LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'events are read under READ COMMITTED only: this transaction is %', current_setting('transaction_isolation')
              USING HINT = 'Leave default_transaction_isolation as Postgres has it.';
    END IF;
    SELECT s.last_value - (NOT s.is_called)::integer INTO high FROM outbox_id_seq s;
    SELECT min((l.classid::bigint << 32 | l.objid::bigint) - event_mark(0)) INTO low
    FROM pg_locks l
    WHERE l.locktype = 'advisory' AND l.mode = 'ShareLock' AND l.objsubid = 1
      AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
      AND l.classid::bigint >> 16 = event_mark(0) >> 48;
END
$$;

-- Who keeps events from being read or carried on, by holding a mark, the place of the fan-out or a table; for ordinary work that takes
-- milliseconds. `since` is null for another account's session, which Postgres does not show to everybody.
CREATE VIEW event_holders AS
SELECT h.mark, h.pid, coalesce(s.application_name, p.gid) AS application, coalesce(s.usename, p.owner) AS account,
       CASE WHEN h.pid IS NULL THEN 'prepared transaction' ELSE s.state END AS state, coalesce(s.xact_start, p.prepared) AS since
FROM (SELECT l.pid, l.virtualtransaction,
             min(CASE l.locktype WHEN 'advisory' THEN (l.classid::bigint << 32 | l.objid::bigint) - event_mark(0)
                 ELSE (SELECT f.id FROM fan_out f) END) AS mark
      FROM pg_locks l
      WHERE l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()) AND l.granted
        AND (l.locktype = 'advisory' AND l.mode = 'ShareLock' AND l.objsubid = 1
             AND l.classid::bigint >> 16 = event_mark(0) >> 48
             OR l.locktype = 'relation' AND l.relation = 'fan_out'::regclass AND l.mode <> 'AccessShareLock'
             OR l.locktype = 'relation' AND l.relation IN ('outbox'::regclass, 'deliveries'::regclass, 'webhook_endpoints'::regclass)
                AND l.mode IN ('ExclusiveLock', 'AccessExclusiveLock'))
      GROUP BY l.pid, l.virtualtransaction) AS h
LEFT JOIN pg_stat_activity s ON s.pid = h.pid
LEFT JOIN pg_prepared_xacts p ON h.pid IS NULL AND h.virtualtransaction = '-1/' || p.transaction::text;

-- From the old order, of transactions, to this one. Some events that were handled may lie behind the new position: each delivery is
-- made once, however often its event is handled. In a ledger that was brought here by a dump, what was skipped meanwhile is among them.
LOCK TABLE outbox, fan_out IN ACCESS EXCLUSIVE MODE;
UPDATE fan_out f SET id = least(
    CASE WHEN f.id > 0 THEN f.id END,
    coalesce((SELECT min(o.id) - 1 FROM outbox o WHERE (o.xid, o.id) > (f.xid, f.id)),
             (SELECT max(o.id) FROM outbox o), 0));
DROP FUNCTION fan_out_events;
DROP INDEX outbox_in_order, outbox_of_merchant;
ALTER TABLE outbox DROP COLUMN xid;
ALTER TABLE fan_out DROP COLUMN xid;
COMMENT ON COLUMN fan_out.id IS 'the last event that was handled';
CREATE INDEX outbox_of_merchant ON outbox (merchant, id);

-- New events into deliveries, in the order of the outbox, up to `events_max`. One row: how many events were handled (null while
-- somebody else is at it), which endpoints have something due now, whether writers ring, since when nothing moved, and (a) and (b).
CREATE FUNCTION fan_out_events(events_max integer)
RETURNS TABLE (handled integer, endpoints text[], asleep boolean, idle_ms integer, high bigint, low bigint)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    reached  fan_out%ROWTYPE;
    readable record;
    last     record;
    ours     boolean;
BEGIN
    -- A statement of its own: the next ones must see everything that the last to hold this lock has written. Marks are read after it:
    -- whoever holds none of them then, and began to write before it could see `asleep`, has committed.
    SELECT f.* INTO reached FROM fan_out f FOR UPDATE SKIP LOCKED;
    ours := FOUND;
    IF NOT ours THEN
        SELECT f.* INTO reached FROM fan_out f;
    END IF;
    SELECT r.high, r.low INTO readable FROM events_readable() AS r;
    IF NOT ours THEN
        RETURN QUERY SELECT NULL::integer, '{}'::text[], reached.asleep,
                            (extract(epoch FROM clock_timestamp() - reached.moved_at) * 1000)::integer, readable.high, readable.low;
        RETURN;
    END IF;
    WITH news AS MATERIALIZED (
        SELECT o.id, o.payment, o.sequence, o.merchant, o.type
        FROM outbox o
        WHERE o.id > reached.id AND o.id <= least(readable.high, readable.low)
        ORDER BY o.id
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
           (SELECT max(n.id) FROM news n) AS id,
           ARRAY(SELECT DISTINCT m.endpoint FROM made m) AS endpoints
    INTO last;
    IF last.handled > 0 THEN
        UPDATE fan_out f SET id = last.id, moved_at = clock_timestamp(), asleep = false;
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
                        (extract(epoch FROM clock_timestamp() - reached.moved_at) * 1000)::integer, readable.high, readable.low;
END
$$;

-- Pages of the event feed for several readers at once: what follows the event ids[i] of merchants[i], or, for a null, its last event.
-- A reader with a filter has at most `scan` events looked at, of which those it does not want come without payload; `scanned` tells
-- whether there may be more. Each reader has a row, of nulls where nothing follows; `passed_event` and `passed_at` are of the event
-- ids[i] itself, or nulls where this merchant has none with that id.
--
-- Rows are compared, and no merchant equated, so that only the index (merchant, id) gives this order: an index of ids alone looks as
-- good while few merchants are known, and would be read from end to end for one who has few events.
CREATE FUNCTION events_pages(merchants text[], ids bigint[], types text[], limits integer[], scan integer)
RETURNS TABLE (reader integer, passed_id bigint, passed_event text, passed_at timestamptz, id bigint, event_id text,
               created_at timestamptz, payload text, scanned bigint)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off
AS $$
#variable_conflict use_column
DECLARE
    readable bigint;
BEGIN
    SELECT least(r.high, r.low) INTO readable FROM events_readable() AS r;
    RETURN QUERY
    SELECT a.reader::integer, p.id, p.event_id, p.created_at, e.id, e.event_id, e.created_at, e.payload, e.scanned
    FROM unnest(merchants, ids, types, limits) WITH ORDINALITY AS a (merchant, after, types, most, reader)
    LEFT JOIN LATERAL (
        SELECT o.id, o.event_id, o.created_at FROM outbox o
        WHERE (o.merchant, o.id) >= (a.merchant, coalesce(a.after, 0))
          AND (o.merchant, o.id) <= (a.merchant, coalesce(a.after, readable))
        ORDER BY o.merchant DESC, o.id DESC
        LIMIT 1
    ) AS p ON true
    LEFT JOIN LATERAL (
        SELECT s.id, s.event_id, s.created_at, CASE WHEN s.wanted THEN s.payload END AS payload, s.scanned
        FROM (
            SELECT o.*, w.wanted, count(*) FILTER (WHERE w.wanted) OVER (ORDER BY o.id) AS place, count(*) OVER () AS scanned
            FROM (
                SELECT o.id, o.event_id, o.created_at, o.type, o.payload FROM outbox o
                WHERE (o.merchant, o.id) > (a.merchant, coalesce(a.after, p.id, 0)) AND (o.merchant, o.id) <= (a.merchant, readable)
                ORDER BY o.merchant, o.id
                LIMIT CASE WHEN a.types IS NULL THEN a.most + 1 ELSE scan END
            ) AS o
            CROSS JOIN LATERAL (SELECT a.types IS NULL OR o.type = ANY(string_to_array(a.types, ',')) AS wanted) AS w
        ) AS s
        WHERE s.place <= a.most
    ) AS e ON true
    ORDER BY a.reader, e.id;
END
$$;

-- Merchants with events that became readable since the last look, and how far this look reaches. The first look has no last one;
-- `merchants` is null where everybody should look: then, and when fewer ids were drawn than the last look saw (a restore).
CREATE FUNCTION events_news(since bigint, OUT reached bigint, OUT merchants text[])
LANGUAGE plpgsql
SET enable_seqscan = off
AS $$
BEGIN
    SELECT CASE WHEN r.high >= since THEN greatest(since, least(r.high, r.low)) ELSE least(r.high, r.low) END INTO reached
    FROM events_readable() AS r;
    IF reached < since OR since IS NULL THEN
        RETURN;
    END IF;
    merchants := ARRAY(SELECT DISTINCT o.merchant FROM outbox o WHERE o.id > since AND o.id <= reached);
END
$$;
