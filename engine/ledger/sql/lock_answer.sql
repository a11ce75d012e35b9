-- One request at a time under one id; the second one waits here and then finds the first one's answer.
SELECT pg_advisory_xact_lock(hashtextextended(%(id)s, 0))
