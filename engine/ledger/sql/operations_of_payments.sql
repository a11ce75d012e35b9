-- What an actor must know: operations that are unsettled or were ever sent, and any it asks for by id.
SELECT * FROM operations
WHERE (payment = ANY(%(payments)s) AND (settled_at IS NULL OR attempts > 0)) OR id = ANY(%(ids)s)
