#!lua flags=allow-oom
-- settle-4: an operation is answered and committed; take it off everybody's hands. Keeps I4 (only called after the
-- commit). In this order, and allowed at full memory: what frees memory comes first.
-- KEYS  1 command stream  2 open operations of the payment (hash)  3 idempotency record  4 entries per merchant (hash)
-- ARGV  1 group  2 operation id  3 record  4 record TTL in ms  5 merchant  6.. entry ids (none for an operation resumed
--       elsewhere)
-- Returns the number of entries acknowledged.
-- Atomic, because a reader between the steps would see an operation that is neither open nor settled.
local acked, deleted = 0, 0
for index = 6, #ARGV do
    acked = acked + redis.call('XACK', KEYS[1], ARGV[1], ARGV[index])
    deleted = deleted + redis.call('XDEL', KEYS[1], ARGV[index])
end
if deleted > 0 and redis.call('HINCRBY', KEYS[4], ARGV[5], -deleted) <= 0 then
    redis.call('HDEL', KEYS[4], ARGV[5])
end
if redis.call('XLEN', KEYS[1]) == 0 then -- whatever was taken out by hand is not counted for ever
    redis.call('DEL', KEYS[4])
end
redis.call('HDEL', KEYS[2], ARGV[2])
redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[4])
return acked
