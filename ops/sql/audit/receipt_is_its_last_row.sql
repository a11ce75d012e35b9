-- I8: receipts in another state than their last journal row left them, with another head, or of an unknown operation.
SELECT payments.id AS payment, payments.operation_id AS operation, payments.created_at AS at,
       CASE WHEN shown.id IS NULL THEN 'the receipt shows an operation that is not there'
            WHEN payments.state <> journal.to_state
            THEN format('the receipt is %%s, its last journal row says %%s', payments.state, journal.to_state)
            ELSE format('the receipt does not hold the head of its journal, row %%s', journal.sequence)
       END AS detail
FROM payments
LEFT JOIN operations AS shown ON shown.id = payments.operation_id AND shown.payment = payments.id
LEFT JOIN LATERAL (SELECT sequence, to_state, mac FROM transitions WHERE payment = payments.id
                   ORDER BY sequence DESC LIMIT 1) AS journal ON true
WHERE (%(payments)s::text[] IS NULL OR payments.id = ANY (%(payments)s))
  AND (shown.id IS NULL OR payments.state <> journal.to_state OR payments.journal_head <> journal.mac)
ORDER BY at DESC
LIMIT %(limit)s
