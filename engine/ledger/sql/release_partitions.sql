-- Give partitions up in good order; only the current owner may, by its epoch and token.
UPDATE partitions p SET owner = NULL
FROM unnest(%(ids)s::integer[], %(epochs)s::bigint[], %(tokens)s::text[]) AS held (id, epoch, token)
WHERE p.id = held.id AND p.epoch = held.epoch AND p.token = held.token
