-- I9: sealed cards of operations that are answered, that ask the bank no more, or that never needed one. What is in review and
-- was never at the bank keeps its card: an operator may have it asked after all.
SELECT payment, id AS operation, coalesce(settled_at, created_at) AS at,
       format('the %%s is %%s and still holds a sealed card', verb, status) AS detail
FROM operations
WHERE (%(payments)s::text[] IS NULL OR payment = ANY (%(payments)s))
  AND sealed IS NOT NULL AND (settled_at IS NOT NULL OR verb <> 'authorize' OR status NOT IN ('accepted', 'sent', 'in_doubt')
                              AND NOT (status = 'review' AND doubted_at IS NULL))
ORDER BY at DESC
LIMIT %(limit)s
