-- The next payments by id.
SELECT id FROM payments WHERE id > %(after)s ORDER BY id LIMIT %(limit)s
