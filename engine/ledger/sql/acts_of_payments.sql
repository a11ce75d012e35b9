-- Acts that wait for these payments' actors, in the order in which they were asked for.
SELECT id, act, payment, operation, actor, reason, detail FROM audit
WHERE payment = ANY(%(payments)s) AND result IS NULL AND act IN ('retry', 'resolve', 'correct')
ORDER BY id
