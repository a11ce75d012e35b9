#!lua flags=allow-oom
-- read-2: read new entries, only as the holder of the partition's lease. Keeps I2/I3: a former owner's late read would
-- take one command of a payment while the new owner takes the next.
-- KEYS  1 lease  2 command stream
-- ARGV  1 lease token  2 group  3 consumer  4 entries max  5 the last entry that was delivered to this reader
-- Returns {"lost"} when the lease is not ours; {"gap", id} when the group has delivered up to another entry than the
-- reader knows of (the reply of a read was lost, or Redis was): nothing is read, what is missing comes first; else
-- {"read", entries} with entries as XREADGROUP gives them.
-- Atomic, because the lease may pass on between a check and a read. The group is made again when it is missing (I11).
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return {'lost'}
end
local delivered = nil
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[2])
if not groups.err then
    for _, group in ipairs(groups) do
        local facts = {}
        for index = 1, #group, 2 do
            facts[group[index]] = group[index + 1]
        end
        if facts['name'] == ARGV[2] then
            delivered = facts['last-delivered-id']
        end
    end
end
if not delivered then
    redis.call('XGROUP', 'CREATE', KEYS[2], ARGV[2], '0', 'MKSTREAM')
    delivered = '0-0'
end
if delivered ~= ARGV[5] then
    return {'gap', delivered}
end
local reply = redis.call('XREADGROUP', 'GROUP', ARGV[2], ARGV[3], 'COUNT', ARGV[4], 'STREAMS', KEYS[2], '>')
if not reply then
    return {'read', {}}
end
return {'read', reply[1][2]}
