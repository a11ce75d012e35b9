#!lua flags=allow-oom
-- settle-3: an operation is answered and committed; take it off everybody's hands. Keeps I4 (only called after the
-- commit). In this order, and allowed at full memory: what frees memory comes first.
-- KEYS  1 command stream  2 open operations of the payment (hash)  3 idempotency record (string)
-- ARGV  1 group  2 operation id  3 record  4 record TTL in ms  5.. entry ids (none for an operation resumed elsewhere)
-- Returns the number of entries acknowledged.
-- Atomic, because a reader between the steps would see an operation that is neither open nor settled.
local acked = 0
for index = 5, #ARGV do
    acked = acked + redis.call('XACK', KEYS[1], ARGV[1], ARGV[index])
    redis.call('XDEL', KEYS[1], ARGV[index])
end
redis.call('HDEL', KEYS[2], ARGV[2])
redis.call('SET', KEYS[3], ARGV[3], 'PX', ARGV[4])
return acked
