-- What the ledger says was done at the bank: one row for each succeeded operation, and for each bank id of a receipt.
SELECT payments.id AS payment, payments.order_id, payments.state, told.verb, done.id AS operation, told.bank_id, told.reference,
       coalesce(done.amount, told.amount) AS amount, told.amount AS receipt_amount
FROM payments
CROSS JOIN LATERAL (VALUES
    (1, 'authorize', authorization_id, NULL,             amount),
    (2, 'capture',   capture_id,       authorization_id, amount_captured),
    (3, 'void',      void_id,          authorization_id, amount),
    (4, 'refund',    refund_id,        capture_id,       amount_refunded)
) AS told (position, verb, bank_id, reference, amount)
LEFT JOIN operations AS done
    ON done.payment = payments.id AND done.verb = told.verb AND done.status = 'succeeded'
WHERE payments.connector = 'ficmart_bank' AND (told.bank_id IS NOT NULL OR done.id IS NOT NULL)
ORDER BY payments.created_at, payments.id, told.position
