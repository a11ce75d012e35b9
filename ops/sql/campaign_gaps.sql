-- Payments whose journal, sequence and events do not agree (each must have as many, numbered from 1).
SELECT payments.id, payments.sequence, journal.rows, journal.last, events.rows
FROM payments
LEFT JOIN LATERAL (SELECT count(*) AS rows, max(sequence) AS last FROM transitions WHERE payment = payments.id) AS journal ON true
LEFT JOIN LATERAL (SELECT count(*) AS rows FROM outbox WHERE payment = payments.id) AS events ON true
WHERE journal.rows <> payments.sequence OR journal.last IS DISTINCT FROM nullif(payments.sequence, 0)
   OR events.rows <> payments.sequence
