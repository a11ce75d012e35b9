-- Captures, voids and refunds that the bank may have carried out and the ledger does not know of yet, by what they refer to.
SELECT verb, CASE verb WHEN 'refund' THEN capture_id ELSE authorization_id END
FROM operations JOIN payments ON payments.id = operations.payment
WHERE settled_at IS NULL AND attempts > 0 AND verb <> 'authorize' AND connector = 'ficmart_bank'
