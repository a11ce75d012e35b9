-- Give partitions up in good order; only the current owner's epoch may.
UPDATE partitions p SET owner = NULL
FROM unnest(%(ids)s::integer[], %(epochs)s::bigint[]) AS held (id, epoch)
WHERE p.id = held.id AND p.epoch = held.epoch
