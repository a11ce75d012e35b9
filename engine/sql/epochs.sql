-- The epoch and owner of every partition.
SELECT id, epoch, owner FROM partitions ORDER BY id
