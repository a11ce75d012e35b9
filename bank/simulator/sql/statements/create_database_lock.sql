SELECT pg_advisory_lock(8787)
