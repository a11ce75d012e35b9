-- The bank's own tables. Names and columns are the contract's (section 12); times are UTC without a zone.

CREATE TABLE accounts (
    id                      uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    account_number          varchar(16) NOT NULL UNIQUE,  -- A card resolves to one account.
    cvv                     varchar(3)  NOT NULL,
    expiry_month            integer     NOT NULL,
    expiry_year             integer     NOT NULL,
    balance_cents           bigint      NOT NULL DEFAULT 0,
    available_balance_cents bigint      NOT NULL DEFAULT 0,
    created_at              timestamp   NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
    updated_at              timestamp   NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')
) WITH (fillfactor = 50);  -- Every hold updates a balance: free space keeps those updates on their page, off the index.

CREATE TABLE transactions (
    id           uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    account_id   uuid        NOT NULL REFERENCES accounts (id),
    type         varchar(20) NOT NULL CHECK (type IN ('AUTH_HOLD', 'CAPTURE', 'VOID', 'REFUND')),
    amount_cents bigint      NOT NULL,
    currency     varchar(3)  NOT NULL DEFAULT 'USD',
    reference_id uuid,
    status       varchar(20) NOT NULL CHECK (status IN ('ACTIVE', 'COMPLETED', 'EXPIRED')),
    expires_at   timestamp,
    metadata     jsonb,
    created_at   timestamp   NOT NULL DEFAULT (now() AT TIME ZONE 'UTC')
) WITH (fillfactor = 90);

-- Prevents a second refund of one capture (and a second capture or void of one hold). It is per type:
-- that a hold is not both captured and voided rests on the hold's status and row lock alone.
CREATE UNIQUE INDEX transactions_reference_type ON transactions (reference_id, type)
    WHERE type IN ('CAPTURE', 'VOID', 'REFUND');

CREATE TABLE idempotency_keys (
    key             varchar(255) NOT NULL,
    request_path    varchar(100) NOT NULL,
    response_status integer      NOT NULL,
    response_body   text         NOT NULL,
    created_at      timestamp    NOT NULL DEFAULT (now() AT TIME ZONE 'UTC'),
    PRIMARY KEY (key, request_path)  -- The first answer stored for a key is the one replayed.
);

CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);

-- Practice money needs no fsync per answer, and expiry is compared between times without a zone.
DO $$
BEGIN
    EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database());
    EXECUTE format('ALTER DATABASE %I SET timezone = ''UTC''', current_database());
END
$$;
