-- What a process must bring to work here: the keys of this installation, by check values that give nothing of them away, and
-- who holds which master key now, so that a rotation waits until everybody has the new one.

ALTER TABLE installation
    ADD COLUMN fingerprint_check text,             -- of the permanent key; null until the first process brings it
    ADD COLUMN sealing_key       text;             -- the id of the master key that everybody seals with now

CREATE TABLE master_keys (
    id             text PRIMARY KEY CHECK (id ~ '^[0-9a-f]{8}$'),  -- as in the envelopes that it seals
    check_value    text NOT NULL,                  -- four bytes are no proof: another key with this id is told by it
    first_seen_at  timestamptz NOT NULL DEFAULT now(),
    sealed_from    timestamptz,
    sealed_until   timestamptz                     -- null while it seals
);

CREATE TABLE key_holders (
    kind          text NOT NULL CHECK (kind IN ('edge', 'worker', 'dispatcher')),
    name          text NOT NULL,
    current       text NOT NULL,                   -- the id of its PENSTOCK_MASTER_KEY
    keys          text[] NOT NULL,                 -- of all that it can open, that one included
    steady_since  timestamptz NOT NULL,            -- since when it was never silent for long
    seen_at       timestamptz NOT NULL,
    PRIMARY KEY (kind, name)
);

-- The id of the master key in an envelope (version 1: its second to fifth byte); null for what is no envelope.
CREATE FUNCTION sealing_key_of(sealed text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN sealed ~ '^A[Q-Za-f][A-Za-z0-9+/]{6}'
                THEN substr(encode(decode(left(sealed, 8), 'base64'), 'hex'), 3, 8) END
$$;

-- A process says which keys it holds (`held`, its PENSTOCK_MASTER_KEY first) and learns with which to seal. The row of the
-- installation is locked, so that nobody joins without a key in the moment in which everybody begins to seal with it. The key
-- that seals changes when each process that was seen within `ttl_s` has the new one as its own, and when the one that says so has
-- watched for as long without a break: after an outage of this database, the others had time to come back first.
-- `lost`: keys that are gone for good, says the operator: one that nobody holds does not keep another from sealing.
CREATE FUNCTION hold_keys(
    its_kind text, its_name text, held text[], checks text[], fingerprint text, lost text[], ttl_s double precision)
RETURNS TABLE (installation_id text, sealing text, fingerprint_fits boolean, mistaken text[], registered text[])
LANGUAGE plpgsql
AS $$
DECLARE
    ours   installation%ROWTYPE;
    at     timestamptz;
    ttl    interval := make_interval(secs => ttl_s);
    chosen text;
BEGIN
    SELECT * INTO ours FROM installation FOR UPDATE;
    at := clock_timestamp();                       -- now() is from before the lock was waited for
    IF ours.id IS NULL THEN
        RETURN;
    END IF;
    chosen := ours.sealing_key;
    IF ours.fingerprint_check IS NULL THEN
        UPDATE installation SET fingerprint_check = fingerprint;
        ours.fingerprint_check := fingerprint;
    END IF;
    mistaken := ARRAY(SELECT m.id FROM master_keys m JOIN unnest(held, checks) AS h (id, check_value) USING (id)
                      WHERE m.check_value <> h.check_value ORDER BY m.id);
    IF chosen = ANY (lost) AND chosen <> ALL (held)
       AND NOT EXISTS (SELECT FROM key_holders k WHERE k.seen_at > at - ttl AND chosen = ANY (k.keys)) THEN
        chosen := NULL;
    END IF;
    installation_id := ours.id;
    fingerprint_fits := ours.fingerprint_check = fingerprint;
    IF fingerprint_fits AND mistaken = '{}' AND (chosen IS NULL OR chosen = ANY (held)) THEN
        INSERT INTO master_keys (id, check_value) SELECT * FROM unnest(held, checks) ON CONFLICT DO NOTHING;
        INSERT INTO key_holders AS k VALUES (its_kind, its_name, held[1], held, at, at)
        ON CONFLICT (kind, name) DO UPDATE
        SET current = excluded.current, keys = excluded.keys, seen_at = at,
            steady_since = CASE WHEN k.seen_at > at - ttl AND k.keys = excluded.keys THEN k.steady_since ELSE at END;
        IF chosen IS NULL OR (
               chosen <> held[1]
               AND (SELECT k.steady_since <= at - ttl FROM key_holders k WHERE k.kind = its_kind AND k.name = its_name)
               AND NOT EXISTS (SELECT FROM key_holders k WHERE k.seen_at > at - ttl AND k.current <> held[1])) THEN
            UPDATE master_keys SET sealed_until = at WHERE id = ours.sealing_key;
            UPDATE master_keys SET sealed_from = at, sealed_until = NULL WHERE id = held[1];
            UPDATE installation SET sealing_key = held[1];
            chosen := held[1];
        END IF;
        DELETE FROM key_holders k WHERE k.seen_at < at - greatest(interval '1 day', ttl);
    END IF;
    sealing := chosen;
    registered := ARRAY(SELECT m.id FROM master_keys m);
    RETURN NEXT;
END
$$;
