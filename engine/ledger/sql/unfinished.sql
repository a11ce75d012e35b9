-- Payments of a partition with something to do, for its new owner: all unsettled work that does not wait for a person, and acts.
SELECT payment FROM operations
WHERE settled_at IS NULL AND partition = %(partition)s AND status IN ('accepted', 'sent', 'in_doubt')
UNION
SELECT p.id FROM audit a JOIN payments p ON p.id = a.payment
WHERE a.result IS NULL AND a.act IN ('retry', 'resolve', 'correct') AND a.partition = %(partition)s AND p.partition = %(partition)s
LIMIT %(limit)s
