SELECT kind, count(transactions.id), coalesce(sum(amount_cents), 0)::bigint,
       count(transactions.id) FILTER (WHERE status = 'ACTIVE')
FROM unnest(ARRAY['AUTH_HOLD', 'CAPTURE', 'VOID', 'REFUND']) AS kind
LEFT JOIN transactions ON transactions.type = kind
GROUP BY kind
ORDER BY kind
