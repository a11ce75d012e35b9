#!lua flags=allow-oom
-- ack-2: entries whose operation is journaled but not answered (parked, or waiting behind a parked one). Keeps I4: only
-- called after that commit. Record and open entry stay, so GET and repeats of the key still see the operation.
-- KEYS  1 command stream  2 entries per merchant (hash)
-- ARGV  1 group  2 merchant  3.. entry ids
-- Returns the number of entries acknowledged.
-- Atomic, because an entry acknowledged and not deleted, or deleted and still counted, would be backlog for ever.
local acked, deleted = 0, 0
for index = 3, #ARGV do
    acked = acked + redis.call('XACK', KEYS[1], ARGV[1], ARGV[index])
    deleted = deleted + redis.call('XDEL', KEYS[1], ARGV[index])
end
if deleted > 0 and redis.call('HINCRBY', KEYS[2], ARGV[2], -deleted) <= 0 then
    redis.call('HDEL', KEYS[2], ARGV[2])
end
return acked
