-- Remember that these keys were used. A use within the last minute is known already: each edge tells of each key, often.
UPDATE api_keys SET used_at = now()
WHERE id = ANY (%(ids)s) AND (used_at IS NULL OR used_at < now() - interval '1 minute')
