#!lua flags=allow-oom
-- heartbeat-1: say that this worker lives, and who else does, by the store's clock.
-- KEYS  1 workers (zset, score: last heartbeat in ms)
-- ARGV  1 worker  2 ms after which a silent worker no longer counts
-- Returns {this worker's heartbeat before or 0, this one, heartbeats that lay ahead of the clock, live workers...}, times in ms.
-- A worker whose heartbeat before is an older one than it was told has seen Redis lose its memory, or the last second of it.
-- A heartbeat that lies ahead was written before the clock stepped back, and would keep a dead worker alive until the clock is
-- there again: it counts from now on.
-- Atomic, so that all workers agree on one list.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local before = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0)
redis.call('ZADD', KEYS[1], now, ARGV[1])
local ahead = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')
for _, worker in ipairs(ahead) do
    redis.call('ZADD', KEYS[1], now, worker)
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
return {before, now, #ahead, unpack(redis.call('ZRANGE', KEYS[1], 0, -1))}
