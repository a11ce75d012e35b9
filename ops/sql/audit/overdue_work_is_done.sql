-- I7: unsettled operations that are due, or whose attempt is over, or whose turn has come, and that nobody works on.
-- What waits for its bank is due when that takes calls again (retries_held).
-- Only the first of a payment has its turn; while that one waits for a person, so do those behind it.
SELECT overdue.payment, overdue.id AS operation, overdue.since AS at,
       format('the %%s is %%s after %%s attempts, overdue since %%s; partition %%s belongs to %%s', overdue.verb, overdue.status,
              overdue.attempts, overdue.since, overdue.partition, coalesce(partitions.owner, 'nobody')) AS detail
FROM (SELECT waiting.*,
             CASE WHEN next_attempt_at IS NOT NULL
                  THEN greatest(next_attempt_at, (SELECT held.until FROM retries_held AS held WHERE held.partition = waiting.partition))
                  WHEN attempts > 0 THEN deadline
                  ELSE greatest(created_at, (SELECT max(settled_at) FROM operations AS before
                                             WHERE before.payment = waiting.payment
                                               AND before.accept_order <= waiting.accept_order))
             END AS since
      FROM operations AS waiting
      WHERE settled_at IS NULL AND status IN ('accepted', 'sent', 'in_doubt')
        AND NOT EXISTS (SELECT FROM operations AS before
                        WHERE before.payment = waiting.payment AND before.settled_at IS NULL
                          AND before.status IN ('accepted', 'sent', 'in_doubt', 'review')
                          AND (before.accept_order, before.created_at, before.id)
                              < (waiting.accept_order, waiting.created_at, waiting.id))) AS overdue
LEFT JOIN partitions ON partitions.id = overdue.partition
WHERE overdue.since < now() - make_interval(secs => %(grace_s)s)
ORDER BY at DESC
LIMIT %(limit)s
