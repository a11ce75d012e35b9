-- I3: operations that took effect after one that was accepted later. Told by the journal, so that no clock is trusted; the
-- engine's own operations, whose keys no client can have, follow their parent.
WITH ended AS (
    SELECT o.payment, o.id, o.verb, o.accept_order, o.settled_at, max(t.sequence) AS sequence
    FROM operations o JOIN transitions t ON t.payment = o.payment AND t.operation = o.id
    WHERE (%(payments)s::text[] IS NULL OR o.payment = ANY (%(payments)s))
      AND o.settled_at IS NOT NULL AND o.key NOT LIKE '§%%'
    GROUP BY o.id
)
SELECT payment, id AS operation, settled_at AS at,
       format('the %%s, accepted at %%s, took effect before the %%s, accepted at %%s', verb, accept_order, next_verb, next_order)
           AS detail
FROM (SELECT *, lead(accept_order) OVER later AS next_order, lead(verb) OVER later AS next_verb
      FROM ended WINDOW later AS (PARTITION BY payment ORDER BY sequence)) AS pairs
WHERE next_order < accept_order
ORDER BY at DESC
LIMIT %(limit)s
