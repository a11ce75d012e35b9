-- Write an act down before it is done. Returns nothing when this key asked for it before.
INSERT INTO audit (actor, act, subject, reason, detail, partition, payment, operation, merchant, key, request_id)
VALUES (%(actor)s, %(act)s, %(subject)s, %(reason)s, %(detail)s, %(partition)s, %(payment)s, %(operation)s, %(merchant)s,
        %(key)s, %(request_id)s)
ON CONFLICT (merchant, act, subject, key) WHERE key IS NOT NULL DO NOTHING
RETURNING id, at, actor, act, subject, reason, detail, payment, operation, result, done_at, request_id
