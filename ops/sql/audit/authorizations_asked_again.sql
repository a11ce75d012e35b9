-- Authorizations that may have left more holds at the bank than the one their receipt names, if it names any.
SELECT operations.id, operations.payment, attempts, operations.amount, payments.method ->> 'last4' AS last4,
       payments.authorization_id AS hold, settled_at IS NULL AS open,
       operations.created_at AS begun_at, coalesce(deadline, settled_at, now()) AS ended_at
FROM operations JOIN payments ON payments.id = operations.payment
WHERE verb = 'authorize' AND connector = 'ficmart_bank'
  AND (attempts > 1 OR (attempts = 1 AND settled_at IS NULL AND operations.status <> 'succeeded'))
ORDER BY operations.created_at
