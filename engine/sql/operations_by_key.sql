-- A merchant's operations under one idempotency key (a key may serve on several paths), oldest first.
SELECT * FROM operations WHERE merchant = %(merchant)s AND key = %(key)s ORDER BY created_at, id LIMIT 100
