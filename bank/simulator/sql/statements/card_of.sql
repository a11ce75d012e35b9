SELECT account_number FROM accounts JOIN transactions ON transactions.account_id = accounts.id WHERE transactions.id = $1::uuid
