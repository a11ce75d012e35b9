-- One act.
SELECT id, at, actor, act, subject, reason, detail, payment, operation, result, done_at, request_id
FROM audit WHERE id = %(id)s
