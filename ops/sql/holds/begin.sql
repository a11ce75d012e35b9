-- Write down that a hold is to be given back, before anything is asked of the bank. Nothing when that is written down already.
INSERT INTO audit (actor, act, subject, reason, detail)
VALUES (%(actor)s, 'hold.release', %(hold)s, %(reason)s, jsonb_build_object('bank_key', %(bank_key)s::text))
ON CONFLICT (subject) WHERE act = 'hold.release' AND coalesce(result, '') NOT LIKE 'refused%%' DO NOTHING
RETURNING id, result
