-- Whose the hold is or may be. One statement, one moment: an authorization that is answered meanwhile is in its receipt.
-- One that was accepted more than an hour after the hold was made, by the bank's clock, did not make it.
SELECT format('payment %%s has it', id) FROM payments
WHERE connector = %(connector)s
  AND authorization_id = %(hold)s
UNION ALL
SELECT format('the authorize %%s of payment %%s, of the same amount, is %%s and may have placed it: end that first', o.id, p.id, o.status)
FROM operations o JOIN payments p ON p.id = o.payment
WHERE o.settled_at IS NULL AND o.verb = 'authorize' AND o.attempts > 0 AND p.authorization_id IS NULL
  AND p.connector = %(connector)s AND o.amount = %(amount)s AND p.currency = %(currency)s
  AND o.created_at < coalesce(%(made_at)s::timestamptz, 'infinity') + interval '1 hour'
LIMIT 1
