-- pending-2: which entries are pending for some time already, only for the holder of the partition's lease.
-- KEYS  1 lease  2 command stream
-- ARGV  1 lease token  2 group  3 idle for at least this many ms  4 entries max
-- Returns {"lost"}, or {"pending", {{id, times delivered}, ..}}.
-- Atomic, for the reason of read-2.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return {'lost'}
end
local found = {}
local reply = redis.pcall('XPENDING', KEYS[2], ARGV[2], 'IDLE', ARGV[3], '-', '+', ARGV[4])
if reply.err then -- no group: nothing was ever read since Redis lost its memory
    return {'pending', found}
end
for index, entry in ipairs(reply) do
    found[index] = {entry[1], entry[4]}
end
return {'pending', found}
