-- The URLs that a merchant has registered, but for one endpoint's. There are ENDPOINTS_MAX of them at most (engine/contracts/webhooks.py).
SELECT id, url FROM webhook_endpoints
WHERE merchant = %(merchant)s AND kind = 'registered' AND status <> 'deleted' AND id <> %(id)s
