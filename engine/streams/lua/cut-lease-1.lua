#!lua flags=allow-oom
-- cut-lease-1: a lease lasts no longer than a lease does. One that would was taken before the store's clock stepped back, or its
-- expiry was taken away; its holder, if it lives, renews it long before the cut one ends.
-- KEYS  1 lease
-- ARGV  1 lease in ms
-- Returns 1 when it was cut, 0 otherwise.
-- Atomic, because a lease that passed on between a look and a cut is somebody else's.
local left = redis.call('PTTL', KEYS[1])
if left == -1 or left > tonumber(ARGV[1]) then
    return redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return 0
