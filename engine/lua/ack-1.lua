#!lua flags=allow-oom
-- ack-1: entries whose operation is journaled but not answered (parked, or waiting behind a parked one). Keeps I4: only
-- called after that commit. Record and open entry stay, so GET and repeats of the key still see the operation.
-- KEYS  1 command stream
-- ARGV  1 group  2.. entry ids
-- Returns the number of entries acknowledged.
-- Atomic, because an entry acknowledged and not deleted would count as backlog for ever.
local acked = 0
for index = 2, #ARGV do
    acked = acked + redis.call('XACK', KEYS[1], ARGV[1], ARGV[index])
    redis.call('XDEL', KEYS[1], ARGV[index])
end
return acked
