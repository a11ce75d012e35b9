#!lua flags=allow-oom
-- release-lease-1: give up a lease, if it is still one's own.
-- KEYS  1 lease
-- ARGV  1 token
-- Returns 1 when it was released, 0 when it was not ours.
-- Atomic, because it may have passed on between a look and a delete.
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('DEL', KEYS[1])
end
return 0
