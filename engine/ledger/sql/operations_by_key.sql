-- One page of a merchant's operations under one idempotency key (a key may serve on several paths), in the order of their
-- acceptance, newest first, from a position on.
SELECT * FROM operations
WHERE merchant = %(merchant)s AND key = %(key)s
  AND (accept_order, id) < (coalesce(%(before_order)s, 9223372036854775807), coalesce(%(before_id)s, ''))
ORDER BY accept_order DESC, id DESC
LIMIT %(limit)s
