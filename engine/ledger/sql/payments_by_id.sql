-- Receipts by id.
SELECT * FROM payments WHERE id = ANY(%(ids)s)
