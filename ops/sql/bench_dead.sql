-- The dead endpoint: attempts made, deliveries waiting.
SELECT (SELECT count(*) FROM delivery_attempts WHERE endpoint = %(dead)s),
       (SELECT count(*) FROM deliveries WHERE finished_at IS NULL AND endpoint = %(dead)s)
