-- I4: cards that the bank is to be asked with, under a master key that no live worker holds while there are live workers.
SELECT o.payment, o.id AS operation, o.created_at AS at,
       format('its card is sealed with the master key %%s, which no worker holds', sealing_key_of(o.sealed)) AS detail
FROM operations o
WHERE o.settled_at IS NULL AND o.sealed IS NOT NULL AND o.status <> 'review'
  AND EXISTS (SELECT FROM key_holders k
              WHERE k.kind = 'worker' AND k.seen_at > now() - make_interval(secs => %(grace_s)s))
  AND NOT EXISTS (SELECT FROM key_holders k
                  WHERE k.kind = 'worker' AND k.seen_at > now() - make_interval(secs => %(grace_s)s)
                    AND coalesce(sealing_key_of(o.sealed), '') = ANY (k.keys))
ORDER BY at DESC
LIMIT %(limit)s
