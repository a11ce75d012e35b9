SELECT transactions.id::text AS id, type AS kind, amount_cents AS amount, reference_id::text AS reference, status,
       account_number AS card
FROM transactions JOIN accounts ON accounts.id = account_id
ORDER BY transactions.created_at
