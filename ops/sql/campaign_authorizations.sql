SELECT operations.id, operations.attempts, payments.amount
FROM operations JOIN payments ON payments.id = operations.payment
WHERE operations.verb = 'authorize' AND payments.amount = ANY (%(amounts)s)
