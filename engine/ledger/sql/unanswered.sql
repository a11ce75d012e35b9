-- Payments with an attempt whose time at the bank is over, by the ledger's clock (tests give another as
-- `now`), and whose outcome nobody has written: a fail-over of
-- Postgres lost it, or the attempt's end, after its actor was done. A deadline further ahead than any attempt reaches was written before
-- the clock stepped back. Payments that an actor has in hand are among them; the caller knows which.
SELECT partition, payment FROM operations
WHERE settled_at IS NULL AND partition = ANY(%(partitions)s) AND status IN ('sent', 'in_doubt') AND next_attempt_at IS NULL
  AND (deadline <= coalesce(%(now)s::timestamptz, statement_timestamp()) - %(lost_after)s::interval OR deadline > coalesce(%(now)s::timestamptz, statement_timestamp()) + %(farthest)s::interval)
LIMIT %(limit)s
