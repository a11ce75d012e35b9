-- A new key of an active merchant, with its line in the audit. Returns nothing when there is no such merchant.
WITH made AS (
    INSERT INTO api_keys (id, merchant_id, scope, digest, hint)
    SELECT %(id)s, m.id, %(scope)s, %(digest)s, %(hint)s FROM merchants m WHERE m.id = %(merchant)s AND m.status = 'active'
    RETURNING id, merchant_id, scope
), audited AS (
    INSERT INTO audit (actor, act, subject, reason, detail)
    SELECT %(actor)s, 'key.create', made.id, %(reason)s,
           jsonb_build_object('merchant', made.merchant_id, 'scope', made.scope)
    FROM made
)
SELECT id FROM made;
