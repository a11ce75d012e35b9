-- For this transaction, times come as UTC.
SET LOCAL TIME ZONE 'UTC'
