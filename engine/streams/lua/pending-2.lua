-- pending-2: which entries are pending, only for the holder of the partition's lease. Not for how long: that would be
-- told by the store's clock, and after it stepped back nothing would seem old for as long as that.
-- KEYS  1 lease  2 command stream
-- ARGV  1 lease token  2 group  3 entries max
-- Returns {"lost"}, or {"pending", {{id, times delivered}, ..}}.
-- Atomic, for the reason of read-2.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return {'lost'}
end
local found = {}
local reply = redis.pcall('XPENDING', KEYS[2], ARGV[2], '-', '+', ARGV[3])
if reply.err then -- no group: nothing was ever read since Redis lost its memory
    return {'pending', found}
end
for index, entry in ipairs(reply) do
    found[index] = {entry[1], entry[4]}
end
return {'pending', found}
