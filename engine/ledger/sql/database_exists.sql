-- Asked when a database does not let us in: a missing one is created, any other trouble is reported.
SELECT FROM pg_database WHERE datname = %(name)s
