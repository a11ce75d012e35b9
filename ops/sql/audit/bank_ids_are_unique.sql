-- I5: one effect of the bank in two receipts.
SELECT max(id) AS payment, NULL AS operation, max(created_at) AS at,
       format('%%s is in the receipts of %%s', bank_id, string_agg(id, ', ' ORDER BY created_at, id)) AS detail
FROM payments
CROSS JOIN LATERAL (VALUES (authorization_id), (capture_id), (void_id), (refund_id)) AS told (bank_id)
WHERE bank_id IS NOT NULL
GROUP BY connector, bank_id
HAVING count(*) > 1
ORDER BY at DESC
LIMIT %(limit)s
