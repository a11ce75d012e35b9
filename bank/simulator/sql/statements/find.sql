SELECT amount_cents, currency, reference_id::text, expires_at, created_at
FROM transactions
WHERE id = $1::uuid AND type = $2::text
