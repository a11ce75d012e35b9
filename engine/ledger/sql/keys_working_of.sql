-- Which of these keys work in this database.
SELECT id FROM api_keys
WHERE digest = ANY (%(digests)s::bytea[])
  AND (LEAST(expires_at, revoked_at) IS NULL OR LEAST(expires_at, revoked_at) > now())
ORDER BY id;
