#!lua flags=allow-oom
-- abstain-1: a worker that cannot carry out everything leaves the list, as long as somebody else is on it.
-- KEYS  1 workers (zset, score: last heartbeat in ms)
-- ARGV  1 worker  2 ms after which a silent worker no longer counts
-- Returns 1 when others are there and it is off the list, 0 when it is needed.
-- Atomic, because two that look at once and both leave would leave nobody.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
local listed = redis.call('ZSCORE', KEYS[1], ARGV[1]) and 1 or 0
if redis.call('ZCARD', KEYS[1]) - listed < 1 then
    return 0
end
redis.call('ZREM', KEYS[1], ARGV[1])
return 1
