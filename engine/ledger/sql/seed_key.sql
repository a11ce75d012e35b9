-- A well-known key of the local stack; one that is there, revoked perhaps, stays as it is.
INSERT INTO api_keys (id, merchant_id, scope, digest, hint)
VALUES (%(id)s, %(merchant)s, %(scope)s, %(digest)s, %(hint)s) ON CONFLICT DO NOTHING
