-- How old each transaction is, by the bank's own clock.
SELECT id::text, created_at AT TIME ZONE 'UTC', extract(epoch FROM (now() AT TIME ZONE 'UTC') - created_at)::double precision
FROM transactions
