-- Payments with something to do: all unsettled work when partitions are taken, later only what the schedule makes due. An
-- attempt under way has no next_attempt_at; it is over at its deadline, and whoever made it, or took its partition, waits
-- for it. An operator's act waits for the payment's actor; one on a payment that does not exist waits for nobody. An
-- authorization that is too old is expired, and of one that soon will be its merchant is told, when nothing else is left to do for its
-- payment.
SELECT partition, payment FROM operations
WHERE settled_at IS NULL AND partition = ANY(%(partitions)s) AND status IN ('accepted', 'sent', 'in_doubt')
  AND (%(everything)s OR next_attempt_at <= %(now)s)
UNION
SELECT p.partition, p.id FROM audit a JOIN payments p ON p.id = a.payment
WHERE a.result IS NULL AND a.act IN ('retry', 'resolve') AND a.partition = ANY(%(partitions)s)
  AND p.partition = ANY(%(partitions)s)
UNION
SELECT p.partition, p.id FROM payments p
WHERE p.state = 'authorized' AND p.partition = ANY(%(partitions)s) AND p.expires_at <= %(expired_by)s
  AND NOT EXISTS (SELECT FROM operations o WHERE o.payment = p.id AND o.settled_at IS NULL)
UNION
SELECT p.partition, p.id FROM payments p
WHERE p.state = 'authorized' AND p.expiring_at IS NULL AND p.partition = ANY(%(partitions)s)
  AND p.expires_at <= %(expiring_by)s AND p.expires_at > %(now)s
  AND NOT EXISTS (SELECT FROM operations o WHERE o.payment = p.id AND o.settled_at IS NULL)
LIMIT %(limit)s
