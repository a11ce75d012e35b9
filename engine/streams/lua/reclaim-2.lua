#!lua flags=allow-oom
-- reclaim-2: take named pending entries in hand (again), only as the holder of the partition's lease.
-- KEYS  1 lease  2 command stream
-- ARGV  1 lease token  2 group  3 consumer  4.. entry ids
-- Returns {"lost"}, or {"claimed", entries}. Entries that are gone from the stream are left out.
-- Atomic, for the reason of read-2.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return {'lost'}
end
return {'claimed', redis.call('XCLAIM', KEYS[2], ARGV[2], ARGV[3], '0', unpack(ARGV, 4))}
