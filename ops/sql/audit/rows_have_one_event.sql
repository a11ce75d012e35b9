-- I8: journal rows without their event, events without their row, and rows with two.
SELECT coalesce(journal.payment, event.payment) AS payment, journal.operation, coalesce(journal.at, event.created_at) AS at,
       CASE WHEN event.payment IS NULL THEN format('row %%s (%%s) has no event', journal.sequence, journal.event)
            WHEN journal.payment IS NULL THEN format('event %%s (%%s) has no row', event.sequence, event.type)
            ELSE format('row %%s (%%s) has %%s events, the last is %%s', journal.sequence, journal.event, event.number, event.type)
       END AS detail
FROM (SELECT payment, sequence, event, operation, at FROM transitions
      WHERE %(payments)s::text[] IS NULL OR payment = ANY (%(payments)s)) AS journal
FULL JOIN (SELECT payment, sequence, max(type) AS type, count(*) AS number, max(created_at) AS created_at FROM outbox
           WHERE (%(payments)s::text[] IS NULL OR payment = ANY (%(payments)s)) AND type LIKE 'payment.%%'
           GROUP BY payment, sequence) AS event
    ON event.payment = journal.payment AND event.sequence = journal.sequence
WHERE (event.number, event.type) IS DISTINCT FROM (1, 'payment.' || journal.event)
ORDER BY at DESC
LIMIT %(limit)s
