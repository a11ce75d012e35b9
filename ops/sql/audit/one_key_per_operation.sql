-- I1: operations that ask the same thing under one key have different ids, so the bank would see two keys.
SELECT payment, max(id) AS operation, max(created_at) AS at,
       format('%%s operations %%s under key %%s, each with a bank key of its own', count(*), verb, key) AS detail
FROM operations
WHERE %(payments)s::text[] IS NULL OR payment = ANY (%(payments)s)
GROUP BY payment, verb, key
HAVING count(*) > 1
ORDER BY at DESC
LIMIT %(limit)s
