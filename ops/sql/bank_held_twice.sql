SELECT amount_cents AS amount, transactions.id::text AS id, account_number AS card
FROM transactions JOIN accounts ON accounts.id = account_id
WHERE type = 'AUTH_HOLD' AND amount_cents IN (
    SELECT amount_cents FROM transactions WHERE type = 'AUTH_HOLD' GROUP BY amount_cents HAVING count(*) > 1)
ORDER BY transactions.created_at
