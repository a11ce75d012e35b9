#!lua flags=allow-oom
-- bury-2: move an entry that cannot be handled to the partition's dead-letter stream, without card data (I9).
-- KEYS  1 command stream  2 dead-letter stream
-- ARGV  1 group  2 entry id  3.. fields of the dead letter
-- Returns the dead letter's id.
-- Atomic, because an entry in neither stream would be lost, and one in both handled again.
local id = redis.call('XADD', KEYS[2], '*', unpack(ARGV, 3))
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
return id
