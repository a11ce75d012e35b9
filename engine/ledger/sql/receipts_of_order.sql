-- One page of the receipts of an order, newest first, from a position on; a null filter filters nothing.
SELECT p.*, to_json(o.*) AS shown
FROM (SELECT * FROM payments
      WHERE merchant = %(merchant)s AND order_id = %(order_id)s
        AND (created_at, id) < (coalesce(%(before_at)s, 'infinity'::timestamptz), coalesce(%(before_id)s, ''))
        AND (%(customer_id)s::text IS NULL OR customer_id = %(customer_id)s)
        AND (%(status)s::text IS NULL OR state = %(status)s)
      ORDER BY created_at DESC, id DESC
      LIMIT 101) AS p  -- above the largest page; a number that the planner knows, so that it walks the index
JOIN operations o ON o.id = p.operation_id
ORDER BY p.created_at DESC, p.id DESC
LIMIT %(limit)s
