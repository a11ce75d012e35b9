-- I7: operations that wait for a person.
SELECT payment, id AS operation, coalesce(doubted_at, created_at) AS at,
       format('the %%s waits for a person since %%s, after %%s attempts', verb, coalesce(doubted_at, created_at), attempts) AS detail
FROM operations
WHERE settled_at IS NULL AND status = 'review'
ORDER BY at DESC
LIMIT %(limit)s
