#!lua flags=allow-oom
-- claim-2: take over what former owners read and did not acknowledge, only as the holder of the partition's lease.
-- KEYS  1 lease  2 command stream
-- ARGV  1 lease token  2 group  3 consumer  4 cursor ("0-0" to begin)  5 entries max
-- Returns {"lost"}, or {"claimed", next cursor, entries}. When the cursor comes back as "0-0", all are taken, and the
-- consumers of former owners, which then hold nothing, are removed.
-- Atomic, for the reason of read-2.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return {'lost'}
end
redis.pcall('XGROUP', 'CREATE', KEYS[2], ARGV[2], '0', 'MKSTREAM') -- BUSYGROUP when it is there already
local reply = redis.call('XAUTOCLAIM', KEYS[2], ARGV[2], ARGV[3], '0', ARGV[4], 'COUNT', ARGV[5])
if reply[1] == '0-0' then
    for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[2], ARGV[2])) do
        local facts = {}
        for index = 1, #consumer, 2 do
            facts[consumer[index]] = consumer[index + 1]
        end
        if facts['name'] ~= ARGV[3] and facts['pending'] == 0 then
            redis.call('XGROUP', 'DELCONSUMER', KEYS[2], ARGV[2], facts['name'])
        end
    end
end
return {'claimed', reply[1], reply[2]}
