SELECT extract(epoch FROM max(acquired_at) - to_timestamp(%(gone_at)s))::double precision FROM partitions WHERE id = ANY (%(partitions)s)
