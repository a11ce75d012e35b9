-- Operations by id.
SELECT * FROM operations WHERE id = ANY(%(ids)s)
