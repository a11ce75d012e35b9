-- Take partitions: the new epoch, with the owner's random token, shuts out whoever wrote for them before (I2). Only from the epoch that
-- was seen before the lease was taken: a worker that slept in between, and lost the lease, does not shut out its new holder.
UPDATE partitions p SET epoch = p.epoch + 1, token = taken.token, owner = %(owner)s, acquired_at = now()
FROM (SELECT held.id, seen.token
      FROM partitions held
      JOIN unnest(%(ids)s::integer[], %(epochs)s::bigint[], %(tokens)s::text[]) AS seen (id, epoch, token)
        ON seen.id = held.id AND seen.epoch = held.epoch
      ORDER BY held.id FOR UPDATE OF held) AS taken
WHERE p.id = taken.id
RETURNING p.id, p.epoch
