-- A new current secret; public_key of v1a only. Where a dispatcher made one a moment ago, nobody knows that one: it goes.
INSERT INTO webhook_secrets (merchant, endpoint, scheme, role, sealed, public_key)
VALUES (%(merchant)s, %(endpoint)s, %(scheme)s, 'current', %(sealed)s, %(public_key)s)
ON CONFLICT ON CONSTRAINT webhook_secrets_two_at_most DO UPDATE
SET sealed = excluded.sealed, public_key = excluded.public_key, created_at = excluded.created_at
