-- An id of the bank's is in one receipt: two that name one hold would take each other's money. So the ledger refuses a second
-- one, whoever brings it: an operator who mistypes, or a bank that answers with what it gave to another.
--
-- Where there are such receipts already, this migration stops and names them. For each id that is named, look into the bank's
-- statement for which payment it is. For the other one, set the column to the id that the statement shows for it; where it shows
-- none, that payment has no hold (or capture) of its own: refund or void nothing under it, and set the column to the id with
-- '#wrong' behind it, which no bank knows. Then migrate again, and tell the merchant of that payment.
DO $$
DECLARE
    doubled text;
BEGIN
    SELECT string_agg(format('%s in %s', told.bank_id, told.payments), '; ') INTO doubled
    FROM (SELECT named.bank_id, string_agg(named.id, ' and ' ORDER BY named.id) AS payments
          FROM (SELECT id, connector, 'authorization' AS kind, authorization_id AS bank_id FROM payments
                UNION ALL SELECT id, connector, 'capture', capture_id FROM payments
                UNION ALL SELECT id, connector, 'void', void_id FROM payments
                UNION ALL SELECT id, connector, 'refund', refund_id FROM payments) AS named
          WHERE named.bank_id IS NOT NULL
          GROUP BY named.connector, named.kind, named.bank_id HAVING count(*) > 1
          LIMIT 20) AS told;
    IF doubled IS NOT NULL THEN
        RAISE EXCEPTION 'more than one receipt has the same id of the bank: %', doubled
            USING HINT = 'Compare both with the bank''s statement; engine/sql/0013_bank_ids.sql says how to mend them.';
    END IF;
END
$$;
CREATE UNIQUE INDEX authorization_is_one_receipts ON payments (connector, authorization_id) WHERE authorization_id IS NOT NULL;
CREATE UNIQUE INDEX capture_is_one_receipts ON payments (connector, capture_id) WHERE capture_id IS NOT NULL;
CREATE UNIQUE INDEX void_is_one_receipts ON payments (connector, void_id) WHERE void_id IS NOT NULL;
CREATE UNIQUE INDEX refund_is_one_receipts ON payments (connector, refund_id) WHERE refund_id IS NOT NULL;

-- A correction is carried out by the payment's actor, too. A release of a hold that no receipt names is of no payment.
ALTER TABLE audit
    DROP CONSTRAINT act_is_findable,
    DROP CONSTRAINT done_has_a_result,
    ADD CONSTRAINT act_is_findable CHECK (act NOT IN ('retry', 'resolve', 'correct')
                                          OR (partition IS NOT NULL AND payment IS NOT NULL AND operation IS NOT NULL)),
    ADD CONSTRAINT done_has_a_result CHECK (act NOT IN ('retry', 'resolve', 'correct', 'hold.release')
                                            OR (result IS NULL) = (done_at IS NULL));
DROP INDEX audit_waiting;
CREATE INDEX audit_waiting ON audit (partition) WHERE result IS NULL AND act IN ('retry', 'resolve', 'correct');
-- One release of a hold at a time: repeating the command finds the row that is not done.
CREATE UNIQUE INDEX audit_released_once ON audit (subject) WHERE act = 'hold.release' AND coalesce(result, '') NOT LIKE 'refused%';
