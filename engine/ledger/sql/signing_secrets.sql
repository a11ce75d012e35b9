-- What signs for these endpoints, the current ones first: their own secrets, or their merchant's default for payments' own URLs.
SELECT e.id, e.merchant, e.kind = 'payment_url', s.scheme, s.sealed
FROM webhook_endpoints e
LEFT JOIN webhook_secrets s
  ON s.merchant = e.merchant AND s.endpoint IS NOT DISTINCT FROM CASE e.kind WHEN 'registered' THEN e.id END
 AND (s.expires_at IS NULL OR s.expires_at > clock_timestamp())
WHERE e.id = ANY(%(endpoints)s)
ORDER BY s.role
