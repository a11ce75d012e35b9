-- I7: operations asked of the bank when it may have forgotten their key. An operator may have captures, voids and refunds
-- asked for however late: the bank's own rows keep it from doing one twice.
SELECT payment, id AS operation, send_by AS at,
       format('attempt %%s of the %%s was made %%s after the first', attempts, verb, justify_hours(send_by - first_sent_at)) AS detail
FROM operations
WHERE (%(payments)s::text[] IS NULL OR payment = ANY (%(payments)s))
  AND send_by > first_sent_at + interval '23 hours 5 minutes'  -- the window to send in, and a slow clock
  AND (verb = 'authorize' OR NOT EXISTS (SELECT FROM audit WHERE audit.payment = operations.payment
                                         AND audit.operation = operations.id AND act = 'retry'))
ORDER BY at DESC
LIMIT %(limit)s
