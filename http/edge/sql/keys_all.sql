-- Every key that works now, with its merchant (an operator's may have none): the whole cache of an edge in one read. A key ends at the earlier of its
-- expiry and its revocation (LEAST skips nulls), so a rotated key may be revoked a little in the future.
SELECT k.id, k.merchant_id, k.scope, k.digest, coalesce(m.status = 'disabled', false) AS disabled,
       extract(epoch FROM LEAST(k.expires_at, k.revoked_at))::float8 AS ends_at
FROM api_keys k
LEFT JOIN merchants m ON m.id = k.merchant_id
WHERE LEAST(k.expires_at, k.revoked_at) IS NULL OR LEAST(k.expires_at, k.revoked_at) > now();
