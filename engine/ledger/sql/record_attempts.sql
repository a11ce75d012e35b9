-- What attempts came to; endpoints come back that have failed for too long (0016_failing_in_a_row.sql).
SELECT endpoint FROM record_attempts(%(results)s::json, %(as_of)s, %(patience)s, %(failures_least)s)
