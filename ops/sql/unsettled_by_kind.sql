-- Unsettled operations by connector and verb: how many, how many in doubt and since how many seconds the first of those was sent, how
-- many wait for a person.
SELECT p.connector, o.verb, count(*), count(*) FILTER (WHERE o.status = 'in_doubt'),
       coalesce(max(extract(epoch FROM statement_timestamp() - coalesce(o.first_sent_at, o.created_at)))
                FILTER (WHERE o.status = 'in_doubt'), 0)::float8,
       count(*) FILTER (WHERE o.status = 'review')
FROM operations o
JOIN payments p ON p.id = o.payment
WHERE o.settled_at IS NULL
GROUP BY p.connector, o.verb
ORDER BY p.connector, o.verb
