SELECT count(*), coalesce(sum(balance_cents), 0)::bigint, coalesce(sum(available_balance_cents), 0)::bigint,
       (SELECT count(*) FROM idempotency_keys)
FROM accounts
