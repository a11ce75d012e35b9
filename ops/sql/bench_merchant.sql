-- A merchant of the bench.
INSERT INTO merchants (id, name) VALUES (%(id)s, 'Bench') ON CONFLICT DO NOTHING
