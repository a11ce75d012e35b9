-- Say how an act ended; what was said once stays.
UPDATE audit SET result = coalesce(result, %(result)s), done_at = coalesce(done_at, now()) WHERE id = %(id)s
RETURNING id, at, actor, act, subject, reason, detail, payment, operation, result, done_at, request_id
