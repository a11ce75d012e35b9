-- The act that this key asked for before.
SELECT id, at, actor, act, subject, reason, detail, payment, operation, result, done_at, request_id
FROM audit
WHERE merchant = %(merchant)s AND act = %(act)s AND subject = %(subject)s AND key = %(key)s
