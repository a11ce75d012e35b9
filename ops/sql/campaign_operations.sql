SELECT operations.id, operations.key, operations.payment, operations.verb, operations.status, operations.attempts,
       operations.parent, operations.settled_at IS NOT NULL AS settled, response_status AS answer,
       encode(sha256(response_body), 'hex') AS digest, operations.accept_order, payments.amount, payments.state
FROM operations JOIN payments ON payments.id = operations.payment
