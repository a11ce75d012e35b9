-- What merchants do about webhooks: answers under their idempotency keys, and an index for looking back in time.

-- Keys never forget here either (I6). Answers show secrets, so they are sealed like these (engine/security/encryption.py).
CREATE TABLE stored_answers (
    id           text PRIMARY KEY,                 -- of merchant, path and key (engine/domain/ids.py)
    merchant     text NOT NULL REFERENCES merchants,
    fingerprint  json NOT NULL,
    status       integer NOT NULL CHECK (status IN (200, 201)),
    sealed       text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);

-- The events of some hours of last week. They come in the order of time, more or less: a summary a megabyte is enough, and costs
-- those who write them next to nothing.
CREATE INDEX outbox_by_time ON outbox USING brin (created_at) WITH (autosummarize = on);
