-- A merchant of the local stack; one that is there stays as it is.
INSERT INTO merchants (id, name) VALUES (%(id)s, %(name)s) ON CONFLICT DO NOTHING
