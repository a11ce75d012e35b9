-- The endpoint that has this URL already.
SELECT id FROM webhook_endpoints
WHERE merchant = %(merchant)s AND kind = 'registered' AND url = %(url)s AND status <> 'deleted' AND id <> %(id)s
