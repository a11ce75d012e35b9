SELECT count(*) FROM operations WHERE key LIKE %(run)s || '-%%' AND verb = 'authorize' AND settled_at IS NOT NULL
