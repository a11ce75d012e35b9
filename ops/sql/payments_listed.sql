-- One page of the receipts of one merchant or of all, newest first, behind a payment; a null filter filters nothing. Each merchant's
-- are walked by an index of its own.
SELECT p.*, to_json(o.*) AS shown
FROM (SELECT listed.*
      FROM merchants m
      CROSS JOIN LATERAL (
          SELECT * FROM payments
          WHERE merchant = m.id
            AND (%(order)s::text IS NULL OR order_id = %(order)s)
            AND (%(customer)s::text IS NULL OR customer_id = %(customer)s)
            AND (%(state)s::text IS NULL OR state = %(state)s)
            AND (%(before_id)s::text IS NULL OR (created_at, id) < (%(before_at)s::timestamptz, %(before_id)s))
          ORDER BY created_at DESC, id DESC
          LIMIT %(limit)s) AS listed
      WHERE %(merchant)s::text IS NULL OR m.id = %(merchant)s
      ORDER BY listed.created_at DESC, listed.id DESC
      LIMIT %(limit)s) AS p
JOIN operations o ON o.id = p.operation_id
ORDER BY p.created_at DESC, p.id DESC
