-- Enable or disable a merchant, with its line in the audit (also when it was so before). Returns nothing when there is none.
WITH changed AS (
    UPDATE merchants SET status = %(status)s WHERE id = %(id)s RETURNING id
), audited AS (
    INSERT INTO audit (actor, act, subject, reason)
    SELECT %(actor)s, CASE %(status)s WHEN 'active' THEN 'merchant.enable' ELSE 'merchant.disable' END, changed.id, %(reason)s
    FROM changed
)
SELECT id FROM changed;
