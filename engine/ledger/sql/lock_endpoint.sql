-- An endpoint that is about to be changed by its merchant.
SELECT id, kind, url, description, events, ordered, retry_schedule, status FROM webhook_endpoints
WHERE id = %(id)s AND merchant = %(merchant)s AND status <> 'deleted'
FOR UPDATE
