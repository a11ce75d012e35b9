-- A new merchant, with its line in the audit. Returns nothing when the id is taken.
WITH made AS (
    INSERT INTO merchants (id, name) VALUES (%(id)s, %(name)s) ON CONFLICT (id) DO NOTHING RETURNING id, name
), audited AS (
    INSERT INTO audit (actor, act, subject, reason, detail)
    SELECT %(actor)s, 'merchant.create', made.id, %(reason)s, jsonb_build_object('name', made.name) FROM made
)
SELECT id FROM made;
