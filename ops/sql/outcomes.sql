SELECT right(key, 9)::bigint, extract(epoch FROM settled_at)::double precision
FROM operations
WHERE key LIKE %(run)s || '-%%' AND verb = 'authorize' AND settled_at IS NOT NULL
