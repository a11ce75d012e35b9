-- Who holds which master keys, and for how many seconds each was silent.
SELECT kind, name, current, keys, extract(epoch FROM clock_timestamp() - seen_at)::float8 AS silent_s
FROM key_holders
ORDER BY kind, name
