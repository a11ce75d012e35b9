-- Where a payment stands in a list.
SELECT created_at FROM payments WHERE id = %(id)s
