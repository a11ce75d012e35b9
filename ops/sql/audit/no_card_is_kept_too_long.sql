-- I9: sealed cards of authorizations that may not be asked for any more, or that nobody could ask for in two days.
SELECT payment, id AS operation, coalesce(first_sent_at, created_at) AS at,
       format('the sealed card of an %%s that is %%s since %%s', verb, status, coalesce(first_sent_at, created_at)) AS detail
FROM operations
WHERE settled_at IS NULL AND sealed IS NOT NULL
  AND (first_sent_at < now() - interval '23 hours' - make_interval(secs => %(grace_s)s) - interval '10 minutes'
       OR created_at < now() - interval '48 hours')
ORDER BY at DESC
LIMIT %(limit)s
