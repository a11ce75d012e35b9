"""Everything that touches Postgres for payments: the system of record.

Reading order: migrations and sql/ (tables, constraints, statements), database (connections, and which errors mean
that Postgres is away), writer (the group commit, fenced by epochs), reader (receipts and lists), rows (rows to values
and back), audit_log, schema (does this code fit the tables), key_holder (do the keys), store_clock (the time that
all processes agree on).

Never imports streams: the ledger and Redis know nothing of each other. Of the engine: resilience, security, contracts,
domain and the root.
"""
