-- Whoever counts a merchant's endpoints before adding one does it alone. Foreign keys to the merchant are not held up.
SELECT id FROM merchants WHERE id = %(merchant)s FOR NO KEY UPDATE
