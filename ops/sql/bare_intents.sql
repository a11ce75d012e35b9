-- New receipts.
INSERT INTO bare_receipts (id, amount, currency, order_id, state, version)
SELECT id, amount, currency, order_id, 'pending', 1
FROM unnest(%(ids)s::text[], %(amounts)s::bigint[], %(currencies)s::text[], %(orders)s::text[])
     AS new (id, amount, currency, order_id)
