-- Authorizations that are too old, in the order in which they expire: few rows of a long history, since whatever leaves
-- the state leaves the index. Its price is that a change of state writes a new entry into every index of the receipt.
CREATE INDEX payments_expiring ON payments (partition, expires_at) WHERE state = 'authorized';
