-- A new key in place of a working one, which ends after the overlap (never later than it would have), with its line in
-- the audit. Returns nothing when no working key has the old id.
WITH ending AS (
    UPDATE api_keys SET expires_at = LEAST(expires_at, now() + make_interval(secs => %(overlap_s)s))
    WHERE id = %(old)s AND scope = %(scope)s
      AND (LEAST(expires_at, revoked_at) IS NULL OR LEAST(expires_at, revoked_at) > now())
    RETURNING id, merchant_id, scope, expires_at
), made AS (
    INSERT INTO api_keys (id, merchant_id, scope, digest, hint)
    SELECT %(id)s, ending.merchant_id, ending.scope, %(digest)s, %(hint)s FROM ending
    RETURNING id
), audited AS (
    INSERT INTO audit (actor, act, subject, reason, detail)
    SELECT %(actor)s, 'key.rotate', made.id, %(reason)s,
           jsonb_build_object('merchant', ending.merchant_id, 'replaces', ending.id, 'replaced_ends_at', ending.expires_at)
    FROM made, ending
)
SELECT ending.merchant_id, ending.expires_at FROM made, ending;
