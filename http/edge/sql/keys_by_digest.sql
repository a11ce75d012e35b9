-- The keys that an edge was shown and does not know yet; those that ended stay unknown.
SELECT k.id, k.merchant_id, k.scope, k.digest, coalesce(m.status = 'disabled', false) AS disabled,
       extract(epoch FROM LEAST(k.expires_at, k.revoked_at))::float8 AS ends_at
FROM api_keys k
LEFT JOIN merchants m ON m.id = k.merchant_id
WHERE k.digest = ANY (%(digests)s::bytea[])
  AND (LEAST(k.expires_at, k.revoked_at) IS NULL OR LEAST(k.expires_at, k.revoked_at) > now());
