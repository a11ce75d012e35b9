-- read-2: read new entries, only as the holder of the partition's lease. Keeps I2/I3: a former owner's late read would
-- take one command of a payment while the new owner takes the next.
-- KEYS  1 lease  2 command stream
-- ARGV  1 lease token  2 group  3 consumer  4 entries max
-- Returns {"lost"} when the lease is not ours, else {"read", entries} with entries as XREADGROUP gives them (or false).
-- Atomic, because the lease may pass on between a check and a read. The group is made again when it is missing (I11).
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return {'lost'}
end
local function read()
    return redis.pcall('XREADGROUP', 'GROUP', ARGV[2], ARGV[3], 'COUNT', ARGV[4], 'STREAMS', KEYS[2], '>')
end
local reply = read()
if type(reply) == 'table' and reply.err and string.find(reply.err, 'NOGROUP') then
    redis.call('XGROUP', 'CREATE', KEYS[2], ARGV[2], '0', 'MKSTREAM')
    reply = read()
end
if type(reply) == 'table' and reply.err then
    return reply
end
if not reply then
    return {'read', {}}
end
return {'read', reply[1][2]}
