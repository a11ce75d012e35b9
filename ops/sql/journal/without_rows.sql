-- Receipts of which no row is left.
SELECT p.id, p.sequence FROM payments p
WHERE p.sequence > 0 AND (%(payment)s::text IS NULL OR p.id = %(payment)s)
  AND NOT EXISTS (SELECT FROM transitions t WHERE t.payment = p.id)
ORDER BY p.id
