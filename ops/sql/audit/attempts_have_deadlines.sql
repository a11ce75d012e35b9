-- I1: operations that were asked of the bank without a committed deadline, or answered by it without an attempt.
SELECT payment, id AS operation, created_at AS at,
       CASE WHEN attempts = 0 THEN format('the %%s is %%s after no attempt', verb, status)
            ELSE format('attempt %%s of the %%s has send_by %%s and deadline %%s', attempts, verb,
                        coalesce(send_by::text, 'none'), coalesce(deadline::text, 'none'))
       END AS detail
FROM operations
WHERE (%(payments)s::text[] IS NULL OR payment = ANY (%(payments)s))
  AND CASE WHEN attempts = 0 THEN status IN ('sent', 'in_doubt', 'succeeded', 'declined')
           ELSE coalesce(deadline <= send_by, true)
      END
ORDER BY at DESC
LIMIT %(limit)s
