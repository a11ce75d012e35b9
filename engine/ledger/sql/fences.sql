-- The epoch, token and owner of every partition.
SELECT id, epoch, token, owner FROM partitions ORDER BY id
