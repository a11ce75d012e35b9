-- I6: settled operations without the bytes that a repeated key gets, and unsettled ones that have some. The engine's own
-- operations have no client to answer.
SELECT payment, id AS operation, coalesce(settled_at, created_at) AS at,
       CASE WHEN settled_at IS NULL THEN format('the %%s is %%s and not settled, but holds an answer', verb, status)
            ELSE format('the %%s is %%s without an answer to replay', verb, status)
       END AS detail
FROM operations
WHERE (%(payments)s::text[] IS NULL OR payment = ANY (%(payments)s))
  AND key NOT LIKE '§%%' AND (settled_at IS NULL) <> (response_body IS NULL)
ORDER BY at DESC
LIMIT %(limit)s
