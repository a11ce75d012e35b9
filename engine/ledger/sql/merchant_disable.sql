-- Disable a merchant, with its line in the audit (also when it was disabled before). Returns nothing when there is none.
WITH changed AS (
    UPDATE merchants SET status = 'disabled' WHERE id = %(id)s RETURNING id
), audited AS (
    INSERT INTO audit (actor, act, subject, reason)
    SELECT %(actor)s, 'merchant.disable', changed.id, %(reason)s FROM changed
)
SELECT id FROM changed;
