-- Payments that the schedule makes due, by the ledger's own clock (tests give another as `now`): operations whose time has come, acts that wait, authorizations that
-- are too old, and those that soon will be, of which nobody was told. A time that lies further ahead than any schedule reaches was
-- written before the clock stepped back: it counts as come. An attempt under way has no next_attempt_at (see unanswered.sql).
-- An operator's act waits for the payment's actor; one on a payment that does not exist waits for nobody.
-- An authorization is looked at when nothing else is left to do for its payment. (That is written so that the planner looks
-- there by payment: the index of what is unsettled is full of entries of what has ended since the last vacuum.)
-- Operations that the bank never saw, and those in doubt, are as many as it takes now (engine/resilience/retry_budget.py): none while it takes no calls.
(SELECT partition, payment FROM operations
 WHERE settled_at IS NULL AND partition = ANY(%(partitions)s) AND status IN ('accepted', 'sent')
   AND next_attempt_at <= coalesce(%(now)s::timestamptz, statement_timestamp())
 ORDER BY next_attempt_at, id LIMIT %(unsent)s)
UNION
(SELECT partition, payment FROM operations
 WHERE settled_at IS NULL AND partition = ANY(%(partitions)s) AND status IN ('accepted', 'sent')
   AND next_attempt_at > coalesce(%(now)s::timestamptz, statement_timestamp()) + %(farthest)s::interval AND next_attempt_at <= 'infinity'
 ORDER BY next_attempt_at, id LIMIT %(unsent)s)
UNION
(SELECT partition, payment FROM operations
 WHERE settled_at IS NULL AND partition = ANY(%(partitions)s) AND status = 'in_doubt'
   AND next_attempt_at <= coalesce(%(now)s::timestamptz, statement_timestamp())
 ORDER BY next_attempt_at, id LIMIT %(doubt)s)
UNION
(SELECT partition, payment FROM operations
 WHERE settled_at IS NULL AND partition = ANY(%(partitions)s) AND status = 'in_doubt'
   AND next_attempt_at > coalesce(%(now)s::timestamptz, statement_timestamp()) + %(farthest)s::interval AND next_attempt_at <= 'infinity'
 ORDER BY next_attempt_at, id LIMIT %(doubt)s)
UNION
SELECT p.partition, p.id FROM audit a JOIN payments p ON p.id = a.payment
WHERE a.result IS NULL AND a.act IN ('retry', 'resolve', 'correct') AND a.partition = ANY(%(partitions)s)
  AND p.partition = ANY(%(partitions)s)
UNION
SELECT p.partition, p.id FROM payments p
WHERE p.state = 'authorized' AND p.partition = ANY(%(partitions)s)
  AND p.expires_at <= coalesce(%(now)s::timestamptz, statement_timestamp()) - %(expiry_grace)s::interval
  AND NOT EXISTS (SELECT FROM operations o
                  WHERE o.payment = p.id AND coalesce(o.settled_at, 'infinity') = 'infinity')
UNION
SELECT p.partition, p.id FROM payments p
WHERE p.state = 'authorized' AND p.expiring_at IS NULL AND p.partition = ANY(%(partitions)s)
  AND p.expires_at <= coalesce(%(now)s::timestamptz, statement_timestamp()) + %(expiry_notice)s::interval AND p.expires_at > coalesce(%(now)s::timestamptz, statement_timestamp())
  AND NOT EXISTS (SELECT FROM operations o
                  WHERE o.payment = p.id AND coalesce(o.settled_at, 'infinity') = 'infinity')
LIMIT %(limit)s
