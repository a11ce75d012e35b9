-- The ledger: receipts, operations, journal and outbox, plus who may use the gateway and who owns which partition.

CREATE TABLE installation (
    id          text PRIMARY KEY,                  -- 128 random bits in hex; part of every derived id
    partitions  integer NOT NULL CHECK (partitions BETWEEN 1 AND 1024),
    created_at  timestamptz NOT NULL DEFAULT now()
);
-- Two rows would give one key two payments.
CREATE UNIQUE INDEX installation_is_one ON installation ((true));

CREATE TABLE partitions (
    id           integer PRIMARY KEY,
    epoch        bigint NOT NULL DEFAULT 0,        -- incremented by every acquisition; every commit is fenced by it (I2)
    owner        text,
    acquired_at  timestamptz
);

CREATE TABLE merchants (
    id          text PRIMARY KEY,
    name        text NOT NULL,
    status      text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'disabled')),
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_keys (
    id           text PRIMARY KEY,
    merchant_id  text NOT NULL REFERENCES merchants,
    scope        text NOT NULL CHECK (scope IN ('merchant', 'operator')),
    digest       bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),  -- SHA-256; the key itself is never stored
    hint         text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    revoked_at   timestamptz
);

CREATE TABLE audit (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT now(),
    actor    text NOT NULL,
    act      text NOT NULL,
    subject  text NOT NULL,
    reason   text NOT NULL,
    detail   jsonb NOT NULL DEFAULT '{}'
);

CREATE TABLE payments (
    id                text PRIMARY KEY,
    partition         integer NOT NULL,
    merchant          text NOT NULL,
    amount            bigint NOT NULL CHECK (amount BETWEEN 1 AND 1000000000000),
    currency          text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    order_id          text NOT NULL,
    customer_id       text NOT NULL,
    description       text,
    metadata          json NOT NULL,
    method            json NOT NULL,               -- masked
    connector         text NOT NULL,
    webhook_url       text,
    state             text NOT NULL,
    version           integer NOT NULL,
    sequence          integer NOT NULL,
    amount_captured   bigint NOT NULL,
    amount_refunded   bigint NOT NULL,
    authorization_id  text,
    capture_id        text,
    void_id           text,
    refund_id         text,
    auth_code         text,
    failure           json,
    created_at        timestamptz NOT NULL,
    authorized_at     timestamptz,
    captured_at       timestamptz,
    voided_at         timestamptz,
    refunded_at       timestamptz,
    declined_at       timestamptz,
    failed_at         timestamptz,
    expired_at        timestamptz,
    expires_at        timestamptz,
    operation_id      text NOT NULL,
    journal_head      text NOT NULL,
    write_id          text NOT NULL,               -- the commit that wrote this version: a repeated commit knows itself

    CONSTRAINT state_is_known CHECK (state IN ('pending', 'requires_action', 'authorized', 'captured', 'refunded',
                                               'voided', 'declined', 'failed', 'expired')),
    -- A receipt that says authorized can be captured, voided and reconciled.
    CONSTRAINT authorized_has_its_proof CHECK (
        state NOT IN ('authorized', 'captured', 'refunded', 'voided', 'expired')
        OR (authorization_id IS NOT NULL AND authorized_at IS NOT NULL)),
    -- A receipt never says that money was taken without the amount and the moment.
    CONSTRAINT captured_has_its_proof CHECK (
        state NOT IN ('captured', 'refunded') OR (amount_captured = amount AND captured_at IS NOT NULL)),
    CONSTRAINT refunded_has_its_proof CHECK (
        state <> 'refunded' OR (amount_refunded = amount_captured AND refunded_at IS NOT NULL)),
    CONSTRAINT voided_has_its_proof CHECK (state <> 'voided' OR voided_at IS NOT NULL),
    CONSTRAINT declined_has_its_proof CHECK (state <> 'declined' OR (declined_at IS NOT NULL AND failure IS NOT NULL)),
    CONSTRAINT failed_has_its_proof CHECK (state <> 'failed' OR (failed_at IS NOT NULL AND failure IS NOT NULL)),
    -- Nothing is refunded that was not captured, nothing captured beyond the amount.
    CONSTRAINT amounts_are_ordered CHECK (
        amount_refunded BETWEEN 0 AND amount_captured AND amount_captured BETWEEN 0 AND amount)
) WITH (fillfactor = 70);                          -- room for the next version on the same page
CREATE INDEX payments_by_order ON payments (merchant, order_id, created_at, id);
CREATE INDEX payments_by_customer ON payments (merchant, customer_id, created_at, id);
CREATE INDEX payments_by_time ON payments (merchant, created_at, id);

CREATE TABLE operations (
    id               text PRIMARY KEY,             -- also the bank key: one per operation, for ever (I1)
    payment          text NOT NULL,
    merchant         text NOT NULL,
    partition        integer NOT NULL,
    verb             text NOT NULL CHECK (verb IN ('authorize', 'capture', 'void', 'refund')),
    key              text NOT NULL,
    parent           text,
    sale             boolean NOT NULL,
    amount           bigint NOT NULL,
    fingerprint      json NOT NULL,
    accept_order     bigint NOT NULL,
    status           text NOT NULL CHECK (status IN ('accepted', 'sent', 'in_doubt', 'review', 'succeeded', 'declined',
                                                     'rejected', 'failed')),
    attempts         integer NOT NULL,
    first_sent_at    timestamptz,
    send_by          timestamptz,
    deadline         timestamptz,
    next_attempt_at  timestamptz,
    doubted_at       timestamptz,
    sealed           text,
    request_id       text NOT NULL,
    traceparent      text,
    failure          json,
    response_status  integer,
    response_body    bytea,
    created_at       timestamptz NOT NULL,
    settled_at       timestamptz,

    -- No attempt without its deadline: a new owner must know how long to wait (I7).
    CONSTRAINT sent_has_its_deadline CHECK (
        status <> 'sent' OR (attempts > 0 AND send_by IS NOT NULL AND deadline > send_by)),
    -- Settled means answered; a sealed card never outlives that (I9).
    CONSTRAINT settled_has_no_card CHECK (settled_at IS NULL OR sealed IS NULL),
    CONSTRAINT answered_is_whole CHECK ((response_status IS NULL) = (response_body IS NULL)),
    CONSTRAINT final_is_final CHECK (
        settled_at IS NULL OR status IN ('succeeded', 'declined', 'rejected', 'failed'))
) WITH (fillfactor = 70);
-- The sweeper and the acquisition of a partition read only what is unsettled.
CREATE INDEX operations_unsettled ON operations (partition, next_attempt_at) WHERE settled_at IS NULL;
CREATE INDEX operations_of_payment ON operations (payment, accept_order);
CREATE INDEX operations_by_key ON operations (merchant, key);
-- One effect per kind and payment (I5): a second success of the same verb would be a double charge.
CREATE UNIQUE INDEX operations_succeed_once ON operations (payment, verb) WHERE status = 'succeeded';

CREATE TABLE transitions (
    payment    text NOT NULL,
    sequence   integer NOT NULL CHECK (sequence > 0),
    from_state text,
    to_state   text NOT NULL,
    event      text NOT NULL,
    operation  text NOT NULL,
    at         timestamptz NOT NULL,
    evidence   json NOT NULL,
    mac        text NOT NULL,                      -- chained: over the previous row's mac and this row
    PRIMARY KEY (payment, sequence)                -- gapless with the compare-and-set on the receipt (I8)
);

CREATE TABLE outbox (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid         xid8 NOT NULL DEFAULT pg_current_xact_id(),  -- id order is not commit order; readers stop at xmin
    event_id    text NOT NULL,
    payment     text NOT NULL,
    sequence    integer NOT NULL,
    merchant    text NOT NULL,
    type        text NOT NULL,
    payload     text NOT NULL,
    created_at  timestamptz NOT NULL,
    -- Each journal row has exactly one event (I8).
    CONSTRAINT outbox_one_event UNIQUE (payment, sequence)
);
