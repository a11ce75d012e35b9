-- The newest operations of a payment, for its timeline. Neither card nor answer is among the columns (I9).
SELECT id, verb, key, amount, accept_order, status, attempts, first_sent_at, send_by, deadline, next_attempt_at,
       doubted_at, request_id, response_status, created_at, settled_at
FROM operations WHERE payment = %(payment)s
ORDER BY accept_order DESC, created_at DESC LIMIT %(limit)s
