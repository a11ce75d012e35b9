-- Whose these endpoints are.
SELECT id, merchant FROM webhook_endpoints WHERE id = ANY(%(endpoints)s)
