-- I2: operations in another partition than their payment, so that two owners could write for it; or of no payment.
SELECT operations.payment, operations.id AS operation, operations.created_at AS at,
       CASE WHEN payments.id IS NULL THEN format('the %%s belongs to no payment', verb)
            ELSE format('the %%s is in partition %%s, its payment in %%s', verb, operations.partition, payments.partition)
       END AS detail
FROM operations LEFT JOIN payments ON payments.id = operations.payment
WHERE (%(payments)s::text[] IS NULL OR operations.payment = ANY (%(payments)s))
  AND operations.partition IS DISTINCT FROM payments.partition
ORDER BY at DESC
LIMIT %(limit)s
