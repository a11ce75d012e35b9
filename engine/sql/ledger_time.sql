-- The ledger's clock: when it is read, in its own words.
SELECT now() AS at
