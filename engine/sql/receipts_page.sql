-- One page of a merchant's receipts, newest first, from a position on. A null filter filters nothing.
SELECT p.*, to_json(o.*) AS shown
FROM payments p JOIN operations o ON o.id = p.operation_id
WHERE p.merchant = %(merchant)s
  AND (%(order_id)s::text IS NULL OR p.order_id = %(order_id)s)
  AND (%(customer_id)s::text IS NULL OR p.customer_id = %(customer_id)s)
  AND (%(status)s::text IS NULL OR p.state = %(status)s)
  AND (%(before_at)s::timestamptz IS NULL OR (p.created_at, p.id) < (%(before_at)s, %(before_id)s))
ORDER BY p.created_at DESC, p.id DESC
LIMIT %(limit)s
