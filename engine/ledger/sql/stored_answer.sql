-- The answer that was given under an idempotency key.
SELECT fingerprint, status, sealed FROM stored_answers WHERE id = %(id)s
