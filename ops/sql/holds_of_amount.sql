SELECT count(*) FROM transactions WHERE type = 'AUTH_HOLD' AND amount_cents = %(amount)s
