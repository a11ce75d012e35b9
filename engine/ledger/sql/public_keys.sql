-- Keys that verify v1a signatures of these endpoints, the current ones first.
SELECT s.endpoint, s.public_key, s.role, s.expires_at
FROM webhook_secrets s JOIN webhook_endpoints e ON e.id = s.endpoint AND e.status <> 'deleted'
WHERE s.endpoint = ANY(%(endpoints)s) AND s.scheme = 'v1a' AND (s.expires_at IS NULL OR s.expires_at > clock_timestamp())
ORDER BY s.role
