-- A new endpoint, unless the merchant has as many as it may.
INSERT INTO webhook_endpoints (id, merchant, url, description, events, ordered, retry_schedule)
SELECT %(id)s, %(merchant)s, %(url)s, %(description)s, %(events)s, %(ordered)s, %(retry_schedule)s
WHERE (SELECT count(*) FROM webhook_endpoints
       WHERE merchant = %(merchant)s AND kind = 'registered' AND status <> 'deleted') < %(most)s
RETURNING id
