-- The files applied so far, with the digest each had.
SELECT name, sha256 FROM schema_migrations
