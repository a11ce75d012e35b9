-- All merchants with their keys that still work, oldest first.
SELECT m.id, m.name, m.status, m.created_at, coalesce(json_agg(json_build_object(
           'id', k.id, 'scope', k.scope, 'hint', k.hint, 'ends_at', LEAST(k.expires_at, k.revoked_at))
       ORDER BY k.created_at, k.id) FILTER (WHERE k.id IS NOT NULL), '[]') AS keys
FROM merchants m
LEFT JOIN api_keys k
  ON k.merchant_id = m.id
 AND (LEAST(k.expires_at, k.revoked_at) IS NULL OR LEAST(k.expires_at, k.revoked_at) > now())
GROUP BY m.id
ORDER BY m.created_at, m.id;
