-- I7: payments shown as failed while an attempt may still have its effect.
SELECT payments.id AS payment, operations.id AS operation, operations.created_at AS at,
       format('the payment is %%s, and its %%s is %%s', state, verb, status) AS detail
FROM payments JOIN operations ON operations.payment = payments.id
WHERE (%(payments)s::text[] IS NULL OR payments.id = ANY (%(payments)s))
  AND state IN ('failed', 'declined') AND settled_at IS NULL AND status IN ('sent', 'in_doubt')
ORDER BY at DESC
LIMIT %(limit)s
