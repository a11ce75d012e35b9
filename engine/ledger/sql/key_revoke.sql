-- End a key now, with its line in the audit. Returns nothing when no working key has this id.
WITH ended AS (
    UPDATE api_keys SET revoked_at = now()
    WHERE id = %(id)s AND (LEAST(expires_at, revoked_at) IS NULL OR LEAST(expires_at, revoked_at) > now())
    RETURNING id, merchant_id
), audited AS (
    INSERT INTO audit (actor, act, subject, reason, detail)
    SELECT %(actor)s, 'key.revoke', ended.id, %(reason)s, jsonb_build_object('merchant', ended.merchant_id) FROM ended
)
SELECT id FROM ended;
