-- The four cards of the contract (section 13): a rich one, a modest one, an empty one and an expired one.

INSERT INTO accounts (account_number, cvv, expiry_month, expiry_year, balance_cents, available_balance_cents)
VALUES
    ('4111111111111111', '123', 12, 2030, 1000000, 1000000),
    ('4242424242424242', '456',  6, 2030,   50000,   50000),
    ('5555555555554444', '789',  9, 2030,       0,       0),
    ('5105105105105100', '321',  3, 2020,  500000,  500000);
