-- The newest acts of operators on a payment, for its timeline.
SELECT at, actor, act, operation, reason, result, done_at
FROM audit WHERE payment = %(payment)s
ORDER BY at DESC, id DESC LIMIT %(limit)s
