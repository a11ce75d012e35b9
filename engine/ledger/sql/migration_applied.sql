-- Remembers a file in the transaction that applied it.
INSERT INTO schema_migrations (name, sha256) VALUES (%(name)s, %(sha256)s)
