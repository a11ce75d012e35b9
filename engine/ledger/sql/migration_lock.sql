-- One migration at a time: the key is the word "penstock" as a number. The lock goes with the connection; whoever holds
-- it, or a table, for longer than this is stuck.
SET lock_timeout = '60s';
SELECT pg_advisory_lock(x'70656e73746f636b'::bigint)
