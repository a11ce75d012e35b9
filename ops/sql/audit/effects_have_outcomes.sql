-- I5: effects that a receipt shows and no operation made, or the other way round, or with another amount. A void whose
-- answer was lost is known to have happened without the bank's id of it.
SELECT payments.id AS payment, done.id AS operation, coalesce(done.settled_at, payments.created_at) AS at,
       CASE WHEN done.id IS NULL THEN format('the receipt is %%s, its %%s is %%s, and no %%s succeeded', state, told.name,
                                             coalesce(told.bank_id, 'missing'), told.verb)
            WHEN told.bank_id IS NULL AND told.verb <> 'void' THEN format('a %%s succeeded, and the receipt has no %%s',
                                                                          told.verb, told.name)
            ELSE format('the %%s was of %%s, the receipt says %%s', told.verb, done.amount, told.amount)
       END AS detail
FROM payments
CROSS JOIN LATERAL (VALUES
    ('authorize', 'authorization_id', authorization_id, amount,          state IN ('authorized', 'captured', 'refunded', 'voided', 'expired')),
    ('capture',   'capture_id',       capture_id,       amount_captured, state IN ('captured', 'refunded')),
    ('void',      'void_id',          void_id,          amount,          state = 'voided'),
    ('refund',    'refund_id',        refund_id,        amount_refunded, state = 'refunded')
) AS told (verb, name, bank_id, amount, needed)
LEFT JOIN operations AS done
    ON done.payment = payments.id AND done.verb = told.verb AND done.status = 'succeeded'
WHERE (%(payments)s::text[] IS NULL OR payments.id = ANY (%(payments)s))
  AND CASE WHEN done.id IS NULL THEN told.bank_id IS NOT NULL OR told.needed
           WHEN told.bank_id IS NULL THEN told.verb <> 'void'
           ELSE done.amount <> told.amount
      END
ORDER BY at DESC
LIMIT %(limit)s
