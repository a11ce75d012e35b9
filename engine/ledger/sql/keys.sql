-- Keys with their merchants, oldest first: those that work, or, where `all` says so, those that have ended too.
SELECT k.id, k.scope, k.merchant_id AS merchant, coalesce(m.status = 'disabled', false) AS merchant_disabled, k.hint, k.created_at,
       LEAST(k.expires_at, k.revoked_at) AS ends_at, coalesce(LEAST(k.expires_at, k.revoked_at) <= now(), false) AS ended,
       k.used_at AS last_used_at
FROM api_keys k
LEFT JOIN merchants m ON m.id = k.merchant_id
WHERE (%(all)s OR LEAST(k.expires_at, k.revoked_at) IS NULL OR LEAST(k.expires_at, k.revoked_at) > now())
  AND (%(merchant)s::text IS NULL OR k.merchant_id = %(merchant)s)
  AND (%(scope)s::text IS NULL OR k.scope = %(scope)s)
ORDER BY k.created_at, k.id;
