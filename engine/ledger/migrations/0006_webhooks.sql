-- Webhooks: who wants to be told, with which secrets, what is to be told to whom, and what came of each attempt.

-- The order of events for whoever reads them all: by transaction, then by id. A reader stops below pg_snapshot_xmin: above it
-- a slower transaction with a smaller id may still commit, and would be skipped for ever.
CREATE INDEX outbox_in_order ON outbox (xid, id);
CREATE INDEX outbox_of_merchant ON outbox (merchant, xid, id);

-- How far events have been made into deliveries. Its row is locked by whoever carries it on: one dispatcher at a time.
CREATE TABLE fan_out (
    one       boolean PRIMARY KEY DEFAULT true CHECK (one),  -- a second row would tell everything twice
    xid       xid8 NOT NULL,                       -- the last event that was handled: its transaction and id
    id        bigint NOT NULL,
    moved_at  timestamptz NOT NULL DEFAULT now(),
    asleep    boolean NOT NULL DEFAULT false       -- nobody looks by himself: whoever writes events rings
);
INSERT INTO fan_out (xid, id) VALUES (pg_snapshot_xmin(pg_current_snapshot()), 0);

-- The doorbell. NOTIFY makes commits wait for each other's sync to disk, so it is left out while dispatchers look anyway: what
-- a busy ledger pays is one look at one row a commit.
CREATE FUNCTION ring() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM fan_out WHERE asleep) THEN
        NOTIFY penstock_outbox;
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER outbox_rings AFTER INSERT ON outbox FOR EACH STATEMENT EXECUTE FUNCTION ring();

CREATE TABLE webhook_endpoints (
    id               text PRIMARY KEY,             -- whe_...
    merchant         text NOT NULL REFERENCES merchants,
    -- registered: by the merchant. payment_url: made by the fan-out for the webhook_url of payments, one per merchant and
    -- origin (scheme, host, port), so that these too are bounded; `url` is the origin, and the payment's row has the whole.
    kind             text NOT NULL DEFAULT 'registered' CHECK (kind IN ('registered', 'payment_url')),
    url              text NOT NULL,
    description      text,
    events           text[],                       -- types it wants; null: all
    ordered          boolean NOT NULL DEFAULT false,  -- per payment: n+1 only after n was acknowledged or given up
    retry_schedule   integer[],                    -- seconds between attempts; null: the default of engine/webhooks/delivery.py
    status           text NOT NULL DEFAULT 'enabled' CHECK (status IN ('enabled', 'disabled', 'deleted')),
    disabled_reason  text CHECK (disabled_reason IN ('merchant', 'gone', 'failing')),
    disabled_at      timestamptz,
    failing_since    timestamptz,                  -- the first failure since the last success
    notices          integer NOT NULL DEFAULT 0 CHECK (notices >= 0),  -- sequence of its operational events
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),

    -- An endpoint that wants nothing looks like one that gets nothing.
    CONSTRAINT wants_something CHECK (cardinality(events) > 0),
    -- A schedule without an end, or with a year in it, would keep deliveries for ever; one of zeros would be an attack.
    CONSTRAINT schedule_is_sane CHECK (
        cardinality(retry_schedule) BETWEEN 1 AND 30 AND 1 <= ALL (retry_schedule) AND 604800 >= ALL (retry_schedule)),
    -- Whoever finds it disabled can tell why and since when.
    CONSTRAINT disabled_is_explained CHECK (
        (status = 'disabled') = (disabled_reason IS NOT NULL) AND (status = 'disabled') = (disabled_at IS NOT NULL))
);
-- The same address twice would get everything twice. One that was deleted may come back.
CREATE UNIQUE INDEX webhook_endpoints_once ON webhook_endpoints (merchant, kind, url) WHERE status <> 'deleted';

-- Secrets that sign, sealed with the master key (engine/security/encryption.py); the clear text is shown once and never stored.
CREATE TABLE webhook_secrets (
    merchant    text NOT NULL REFERENCES merchants,
    endpoint    text REFERENCES webhook_endpoints,  -- null: the merchant's default, for the webhook_url of payments
    scheme      text NOT NULL CHECK (scheme IN ('v1', 'v1a')),
    role        text NOT NULL CHECK (role IN ('current', 'previous')),
    sealed      text NOT NULL,
    public_key  text,                              -- whpk_...; of v1a only
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz,

    -- At most two sign at any time: the current one and, after a rotation, the one before.
    CONSTRAINT webhook_secrets_two_at_most UNIQUE NULLS NOT DISTINCT (merchant, endpoint, scheme, role),
    -- The current one never lapses by itself, the previous one always does.
    CONSTRAINT previous_lapses CHECK ((role = 'previous') = (expires_at IS NOT NULL)),
    -- Nobody can verify v1a without its public key.
    CONSTRAINT v1a_can_be_verified CHECK ((scheme = 'v1a') = (public_key IS NOT NULL))
);

-- One event for one endpoint. The event is outbox (payment, sequence). No foreign keys: the fan-out takes both from their tables in
-- the statement that inserts, neither is ever deleted, and keys would lock two rows more for each delivery.
CREATE TABLE deliveries (
    payment            text NOT NULL,
    endpoint           text NOT NULL,
    sequence           integer NOT NULL CHECK (sequence > 0),
    previous_sequence  integer,                    -- of what this endpoint was told before; null: it is told everything
    state              text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sending', 'delivered', 'dead')),
    due_at             timestamptz NOT NULL,       -- when to send, or when it was to be sent
    claimed_until      timestamptz,                -- sending: whose claim lapses then; not indexed, so that to claim is cheap
    attempts           integer NOT NULL DEFAULT 0, -- claims; the number of the latest attempt, never set back
    failures           integer NOT NULL DEFAULT 0, -- the place in the retry schedule; a redelivery begins at 0
    dead_reason        text CHECK (dead_reason IN ('exhausted', 'endpoint_gone', 'endpoint_disabled', 'endpoint_deleted')),
    created_at         timestamptz NOT NULL DEFAULT now(),
    finished_at        timestamptz,

    -- Exactly one delivery per event and endpoint, however often a fan-out is repeated.
    PRIMARY KEY (payment, endpoint, sequence),
    CONSTRAINT previous_is_before CHECK (previous_sequence BETWEEN 0 AND sequence - 1),
    -- A finished delivery is never claimed, an unfinished one never forgotten.
    CONSTRAINT finished_has_its_moment CHECK ((state IN ('delivered', 'dead')) = (finished_at IS NOT NULL)),
    -- A claim without an end would outlive its dispatcher.
    CONSTRAINT sending_has_its_end CHECK ((state = 'sending') = (claimed_until IS NOT NULL)),
    CONSTRAINT dead_is_explained CHECK ((state = 'dead') = (dead_reason IS NOT NULL)),
    CONSTRAINT failures_were_attempts CHECK (failures BETWEEN 0 AND attempts)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.02);  -- room for the claimed version on the same page
-- Claims look endpoint by endpoint, so that the thousands that are due for a dead one stand in nobody's way.
CREATE INDEX deliveries_due ON deliveries (endpoint, due_at) WHERE finished_at IS NULL;
CREATE INDEX deliveries_of_endpoint ON deliveries (endpoint, created_at);
CREATE INDEX deliveries_dead ON deliveries (endpoint, created_at) WHERE dead_reason IS NOT NULL;

-- What came of each attempt. One that has no row was under way when its dispatcher died.
CREATE TABLE delivery_attempts (
    payment      text NOT NULL,
    endpoint     text NOT NULL,
    sequence     integer NOT NULL,
    attempt      integer NOT NULL CHECK (attempt > 0),
    at           timestamptz NOT NULL,
    duration_ms  integer NOT NULL CHECK (duration_ms >= 0),
    outcome      text NOT NULL CHECK (outcome IN ('delivered', 'refused', 'gone', 'timeout', 'unreachable', 'forbidden')),
    status       integer,                          -- of HTTP; null where there was no answer
    error        text,
    body         text,                             -- the first KiB of the answer, undecodable bytes replaced
    -- An attempt has one result.
    PRIMARY KEY (payment, endpoint, sequence, attempt),
    CONSTRAINT answered_has_its_status CHECK ((outcome IN ('delivered', 'refused', 'gone')) = (status IS NOT NULL)),
    CONSTRAINT body_is_bounded CHECK (octet_length(body) <= 4096)
);
