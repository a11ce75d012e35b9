-- I5: payments with two effects of one kind, or with a hold that was both captured and voided.
SELECT payment, max(id) AS operation, max(settled_at) AS at,
       format('%%s succeeded: %%s', count(*), string_agg(verb || ' ' || id, ', ' ORDER BY settled_at, id)) AS detail
FROM operations
WHERE (%(payments)s::text[] IS NULL OR payment = ANY (%(payments)s)) AND status = 'succeeded'
GROUP BY payment, CASE WHEN verb IN ('capture', 'void') THEN 'end of the hold' ELSE verb END
HAVING count(*) > 1
ORDER BY at DESC
LIMIT %(limit)s
