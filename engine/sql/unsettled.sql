-- Payments with unsettled work: all of it when partitions are taken, later only what the schedule makes due. An attempt
-- under way has no next_attempt_at; it is over at its deadline, and whoever made it, or took its partition, waits for it.
SELECT DISTINCT partition, payment FROM operations
WHERE settled_at IS NULL AND partition = ANY(%(partitions)s) AND status IN ('accepted', 'sent', 'in_doubt')
  AND (%(everything)s OR next_attempt_at <= %(now)s)
LIMIT %(limit)s
