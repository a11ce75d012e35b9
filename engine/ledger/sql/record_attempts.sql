-- What attempts came to; endpoints come back that have failed for too long (0007_dispatch.sql).
SELECT endpoint FROM record_attempts(%(results)s::json, %(patience)s)
