-- A first secret for whoever has none; the first to make it wins.
INSERT INTO webhook_secrets (merchant, endpoint, scheme, role, sealed)
VALUES (%(merchant)s, %(endpoint)s, 'v1', 'current', %(sealed)s)
ON CONFLICT DO NOTHING
