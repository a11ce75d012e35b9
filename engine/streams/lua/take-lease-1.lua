#!lua flags=allow-oom
-- take-lease-1: take a free lease, or keep one's own.
-- KEYS  1 lease
-- ARGV  1 token  2 lease in ms
-- Returns "kept" (ours, time renewed) | "taken" (was free) | "held" (another's; cut as by cut-lease-1 when it lasts too long).
-- Atomic, because between a look and a write another worker may take it.
local holder = redis.call('GET', KEYS[1])
if not holder then
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
    return 'taken'
end
if holder == ARGV[1] then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    return 'kept'
end
local left = redis.call('PTTL', KEYS[1])
if left == -1 or left > tonumber(ARGV[2]) then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 'held'
