-- The server process that serves us now. The connection was told another one if there is a pooler in between.
SELECT pg_backend_pid()
