-- The group commit: everything a worker's actors want to write, in one statement, fenced by epoch (I1, I2, I8).
--
-- Each argument is a JSON array: fences {id, epoch}; opened, new receipts; changed, receipts; operations, whole rows;
-- answered, what changes of operations that are surely there; entries, journal rows with their events. Sorted by payment id by the caller. Separate arguments, because taking a member out of one JSON
-- text parses all of it again each time. Returns a row for each payment that was NOT written:
--   stale     the partition has a newer owner: stop
--   conflict  the receipt is at another version (or exists already): load it again
-- A payment whose `write_id` is already there was committed by this very batch before its connection was lost.
--
-- Plans are pinned to index look-ups: they are cached from when the tables were small, and a sequential scan of a grown
-- ledger for each commit would stop the engine.
CREATE FUNCTION ledger_commit(
    fences json, opened json, changed json, operations json, answered json, entries json)
RETURNS TABLE (payment_id text, verdict text)
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
    live    integer[];
    won     text[];
    all_won boolean;
BEGIN
    -- FOR SHARE waits for an acquisition under way and then sees its epoch; a plain read would not.
    SELECT coalesce(array_agg(held.id), '{}') INTO live
    FROM (SELECT p.id, p.epoch FROM partitions p
          WHERE p.id = ANY (SELECT f.id FROM json_to_recordset(ledger_commit.fences) AS f (id integer))
          ORDER BY p.id FOR SHARE OF p) AS held
    JOIN json_to_recordset(ledger_commit.fences) AS f (id integer, epoch bigint)
      ON f.id = held.id AND f.epoch = held.epoch;

    WITH inserted AS (
        INSERT INTO payments (
            id, partition, merchant, amount, currency, order_id, customer_id, description, metadata, method, connector,
            webhook_url, state, version, sequence, amount_captured, amount_refunded, authorization_id, capture_id,
            void_id, refund_id, auth_code, failure, created_at, authorized_at, captured_at, voided_at, refunded_at,
            declined_at, failed_at, expired_at, expires_at, operation_id, journal_head, write_id)
        SELECT r.id, r.partition, r.merchant, r.amount, r.currency, r.order_id, r.customer_id, r.description,
               r.metadata, r.method, r.connector, r.webhook_url, r.state, r.version, r.sequence, r.amount_captured,
               r.amount_refunded, r.authorization_id, r.capture_id, r.void_id, r.refund_id, r.auth_code, r.failure,
               r.created_at, r.authorized_at, r.captured_at, r.voided_at, r.refunded_at, r.declined_at, r.failed_at,
               r.expired_at, r.expires_at, r.operation_id, r.journal_head, r.write_id
        FROM json_populate_recordset(NULL::payments, ledger_commit.opened) AS r
        WHERE r.partition = ANY (live)
        ON CONFLICT (id) DO NOTHING
        RETURNING id
    ), updated AS (
        UPDATE payments p SET
            state = r.state, version = r.version, sequence = r.sequence, amount_captured = r.amount_captured,
            amount_refunded = r.amount_refunded, authorization_id = r.authorization_id, capture_id = r.capture_id,
            void_id = r.void_id, refund_id = r.refund_id, auth_code = r.auth_code, failure = r.failure,
            authorized_at = r.authorized_at, captured_at = r.captured_at, voided_at = r.voided_at,
            refunded_at = r.refunded_at, declined_at = r.declined_at, failed_at = r.failed_at,
            expired_at = r.expired_at, expires_at = r.expires_at, operation_id = r.operation_id,
            journal_head = r.journal_head, write_id = r.write_id
        FROM json_populate_recordset(NULL::payments, ledger_commit.changed) AS r
        WHERE p.id = r.id AND p.version = r.version - 1 AND r.partition = ANY (live)
        RETURNING p.id
    )
    SELECT coalesce(array_agg(w.id), '{}') INTO won FROM (SELECT id FROM inserted UNION ALL SELECT id FROM updated) AS w;
    all_won := cardinality(won) = json_array_length(ledger_commit.opened) + json_array_length(ledger_commit.changed);

    INSERT INTO operations AS o (
        id, payment, merchant, partition, verb, key, parent, sale, amount, fingerprint, accept_order, status, attempts,
        first_sent_at, send_by, deadline, next_attempt_at, doubted_at, sealed, request_id, traceparent, failure, response_status,
        response_body, created_at, settled_at)
    SELECT r.id, r.payment, r.merchant, r.partition, r.verb, r.key, r.parent, r.sale, r.amount, r.fingerprint,
           r.accept_order, r.status, r.attempts, r.first_sent_at, r.send_by, r.deadline, r.next_attempt_at, r.doubted_at,
           r.sealed, r.request_id, r.traceparent, r.failure, r.response_status, convert_to(r.response_body, 'UTF8'),
           r.created_at, r.settled_at
    FROM json_to_recordset(ledger_commit.operations) AS r (
        id text, payment text, merchant text, partition integer, verb text, key text, parent text, sale boolean,
        amount bigint, fingerprint json, accept_order bigint, status text, attempts integer, first_sent_at timestamptz,
        send_by timestamptz, deadline timestamptz, next_attempt_at timestamptz, doubted_at timestamptz, sealed text, request_id text,
        traceparent text, failure json, response_status integer, response_body text, created_at timestamptz,
        settled_at timestamptz)
    WHERE all_won OR r.payment = ANY (won)
    ON CONFLICT (id) DO UPDATE SET
        status = excluded.status, attempts = excluded.attempts, first_sent_at = excluded.first_sent_at,
        send_by = excluded.send_by, deadline = excluded.deadline, next_attempt_at = excluded.next_attempt_at,
        doubted_at = excluded.doubted_at, sealed = excluded.sealed, failure = excluded.failure, response_status = excluded.response_status,
        response_body = excluded.response_body, settled_at = excluded.settled_at
    -- An answer once stored is never rewritten (I6).
    WHERE o.settled_at IS NULL;

    UPDATE operations o SET
        status = r.status, attempts = r.attempts, first_sent_at = r.first_sent_at, send_by = r.send_by,
        deadline = r.deadline, next_attempt_at = r.next_attempt_at, doubted_at = r.doubted_at, sealed = r.sealed,
        failure = r.failure, response_status = r.response_status, response_body = convert_to(r.response_body, 'UTF8'),
        settled_at = r.settled_at
    FROM json_to_recordset(ledger_commit.answered) AS r (
        id text, payment text, status text, attempts integer, first_sent_at timestamptz, send_by timestamptz,
        deadline timestamptz, next_attempt_at timestamptz, doubted_at timestamptz, sealed text, failure json,
        response_status integer, response_body text, settled_at timestamptz)
    WHERE o.id = r.id AND o.settled_at IS NULL AND (all_won OR r.payment = ANY (won));

    WITH written AS MATERIALIZED (
        SELECT r.* FROM json_to_recordset(ledger_commit.entries) AS r (
            payment text, sequence integer, from_state text, to_state text, event text, operation text, at timestamptz,
            evidence json, mac text, event_id text, merchant text, payload text)
        WHERE all_won OR r.payment = ANY (won)
    ), journaled AS (
        INSERT INTO transitions (payment, sequence, from_state, to_state, event, operation, at, evidence, mac)
        SELECT e.payment, e.sequence, e.from_state, e.to_state, e.event, e.operation, e.at, e.evidence, e.mac
        FROM written e
    )
    INSERT INTO outbox (event_id, payment, sequence, merchant, type, payload, created_at)
    SELECT e.event_id, e.payment, e.sequence, e.merchant, 'payment.' || e.event, e.payload, e.at FROM written e;

    IF all_won THEN
        RETURN;
    END IF;
    RETURN QUERY
        SELECT w.id, CASE WHEN w.partition = ANY (live) THEN 'conflict' ELSE 'stale' END
        FROM (SELECT r.* FROM json_populate_recordset(NULL::payments, ledger_commit.opened) AS r
              UNION ALL
              SELECT r.* FROM json_populate_recordset(NULL::payments, ledger_commit.changed) AS r) AS w
        WHERE w.id <> ALL (won)
          AND NOT EXISTS (SELECT 1 FROM payments p
                          WHERE p.id = w.id AND p.version = w.version AND p.write_id = w.write_id);
END
$$;
