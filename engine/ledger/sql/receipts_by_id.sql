-- Receipts by id, each with the operation it shows.
SELECT p.*, to_json(o.*) AS shown FROM payments p JOIN operations o ON o.id = p.operation_id WHERE p.id = ANY(%(ids)s)
