INSERT INTO accounts (account_number, cvv, expiry_month, expiry_year, balance_cents, available_balance_cents)
SELECT number, '123', 12, 2040, 1000000000000, 1000000000000
FROM unnest($1::text[]) AS number
ON CONFLICT (account_number) DO NOTHING
