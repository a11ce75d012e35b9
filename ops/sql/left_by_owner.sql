-- Of the partitions of an owner that is gone: what was accepted before that moment and not settled by then, and when it
-- was settled.
SELECT extract(epoch FROM settled_at - to_timestamp(%(gone_at)s))::double precision, attempts
FROM operations JOIN payments ON payments.id = operations.payment
WHERE payments.partition = ANY (%(partitions)s) AND payments.created_at <= to_timestamp(%(gone_at)s)
  AND (settled_at IS NULL OR settled_at > to_timestamp(%(gone_at)s))
