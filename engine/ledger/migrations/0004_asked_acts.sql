-- Acts that are asked for over HTTP have an idempotency key, in the scope of the operator's merchant, act and path.
ALTER TABLE audit
    ADD COLUMN merchant   text,
    ADD COLUMN key        text,
    ADD COLUMN request_id text,
    ADD CONSTRAINT key_has_its_scope CHECK ((key IS NULL) = (merchant IS NULL)),
    -- What was done about a dead letter is known, or nobody knows it yet; never half of it.
    ADD CONSTRAINT buried_act_is_whole CHECK (act NOT LIKE 'dead_letter.%' OR (result IS NULL) = (done_at IS NULL));
-- A request that is repeated is one act, however many edges it meets.
CREATE UNIQUE INDEX audit_asked_once ON audit (merchant, act, subject, key) WHERE key IS NOT NULL;
CREATE INDEX audit_of_letter ON audit (subject) WHERE act LIKE 'dead_letter.%';
