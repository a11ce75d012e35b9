#!lua flags=allow-oom
-- bury-3: move an entry that cannot be handled to the partition's dead-letter stream, without card data (I9).
-- KEYS  1 command stream  2 dead-letter stream  3 entries per merchant (hash)
-- ARGV  1 group  2 entry id  3 merchant ("" where the entry does not say)  4.. fields of the dead letter
-- Returns the dead letter's id.
-- Atomic, because an entry in neither stream would be lost, and one in both handled again.
local id = redis.call('XADD', KEYS[2], '*', unpack(ARGV, 4))
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
local deleted = redis.call('XDEL', KEYS[1], ARGV[2])
if deleted > 0 and redis.call('HINCRBY', KEYS[3], ARGV[3], -deleted) <= 0 then
    redis.call('HDEL', KEYS[3], ARGV[3])
end
return id
