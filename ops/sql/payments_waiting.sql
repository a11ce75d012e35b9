-- The same of payments that have an unsettled operation in doubt or in review: few, whatever the ledger's size.
SELECT p.*, to_json(o.*) AS shown
FROM payments p
JOIN operations o ON o.id = p.operation_id
WHERE p.id IN (SELECT payment FROM operations WHERE settled_at IS NULL AND status = %(waiting)s)
  AND (%(merchant)s::text IS NULL OR p.merchant = %(merchant)s)
  AND (%(order)s::text IS NULL OR p.order_id = %(order)s)
  AND (%(customer)s::text IS NULL OR p.customer_id = %(customer)s)
  AND (%(state)s::text IS NULL OR p.state = %(state)s)
  AND (%(before_id)s::text IS NULL OR (p.created_at, p.id) < (%(before_at)s::timestamptz, %(before_id)s))
ORDER BY p.created_at DESC, p.id DESC
LIMIT %(limit)s
