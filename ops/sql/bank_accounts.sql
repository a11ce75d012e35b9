SELECT account_number AS card, balance_cents AS balance, available_balance_cents AS available FROM accounts
