-- Take partitions: the new epoch shuts out whoever wrote for them before (I2).
UPDATE partitions p SET epoch = epoch + 1, owner = %(owner)s, acquired_at = now()
FROM (SELECT id FROM partitions WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE) AS taken
WHERE p.id = taken.id
RETURNING p.id, p.epoch
