-- A new key of an active merchant, or of none, with its line in the audit. Returns nothing when there is no such merchant.
WITH made AS (
    INSERT INTO api_keys (id, merchant_id, scope, digest, hint)
    SELECT %(id)s, owner.id, %(scope)s, %(digest)s, %(hint)s
    FROM (SELECT id FROM merchants WHERE id = %(merchant)s AND status = 'active'
          UNION ALL
          SELECT NULL WHERE %(merchant)s::text IS NULL) AS owner
    RETURNING id, merchant_id, scope
), audited AS (
    INSERT INTO audit (actor, act, subject, reason, detail)
    SELECT %(actor)s, 'key.create', made.id, %(reason)s,
           jsonb_build_object('merchant', made.merchant_id, 'scope', made.scope)
    FROM made
)
SELECT id FROM made;
