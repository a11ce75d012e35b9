-- An operator's acts. The row is written before the act, with its reason; acts on one payment (retry, resolve) are carried
-- out by the payment's own actor, which finds the row in its ledger, so they survive a lost Redis and keep their order.
ALTER TABLE audit
    ADD COLUMN partition integer,
    ADD COLUMN payment   text,
    ADD COLUMN operation text,
    ADD COLUMN result    text,                     -- null until it is carried out or refused
    ADD COLUMN done_at   timestamptz,
    -- An act without a reason explains nothing to whoever reads the trail.
    ADD CONSTRAINT act_has_a_reason CHECK (btrim(reason) <> ''),
    -- The owner of the partition must be able to find what it is asked to do.
    ADD CONSTRAINT act_is_findable CHECK (act NOT IN ('retry', 'resolve') OR (partition IS NOT NULL AND payment IS NOT NULL
                                                                              AND operation IS NOT NULL)),
    ADD CONSTRAINT done_has_a_result CHECK (act NOT IN ('retry', 'resolve') OR (result IS NULL) = (done_at IS NULL));
CREATE INDEX audit_waiting ON audit (partition) WHERE result IS NULL AND act IN ('retry', 'resolve');
CREATE INDEX audit_of_payment ON audit (payment, at) WHERE payment IS NOT NULL;
