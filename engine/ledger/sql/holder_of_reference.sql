-- Who has an id of the bank's: a receipt, under whichever name, or the act that released a hold which no receipt had.
SELECT 'payment ' || id FROM payments WHERE connector = %(connector)s AND authorization_id = %(reference)s
UNION ALL
SELECT 'payment ' || id FROM payments WHERE connector = %(connector)s AND capture_id = %(reference)s
UNION ALL
SELECT 'payment ' || id FROM payments WHERE connector = %(connector)s AND void_id = %(reference)s
UNION ALL
SELECT 'payment ' || id FROM payments WHERE connector = %(connector)s AND refund_id = %(reference)s
UNION ALL
SELECT 'its release, act_' || id || ',' FROM audit
WHERE act = 'hold.release' AND subject = %(reference)s AND coalesce(result, '') NOT LIKE 'refused%%'
LIMIT 1
