#!lua flags=allow-oom
-- adopt-2: make pending for the holder of the lease what nobody has: entries up to the last one delivered that are
-- pending for no consumer. None should be; a hand at the group (SETID, DELCONSUMER, DESTROY) leaves some. Keeps I10.
-- KEYS  1 lease  2 command stream
-- ARGV  1 lease token  2 group  3 consumer  4 cursor ("-" to begin)  5 entries looked at
-- Returns {"lost"}, or {"adopted", next cursor ("": that was all), how many}. Their deliveries are still to be counted.
-- Atomic, for the reason of read-2, and because an entry may be acknowledged between a look and a claim. Only what is
-- acknowledged is deleted, so as many entries as are pending and unread is all in order, and nothing is looked at.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return {'lost'}
end
local function facts_of(reply)
    local facts = {}
    for index = 1, #reply, 2 do
        facts[reply[index]] = reply[index + 1]
    end
    return facts
end
local function beyond(one, other)
    local ms, sequence = string.match(one, '^(%d+)-(%d+)$')
    local than_ms, than_sequence = string.match(other, '^(%d+)-(%d+)$')
    if ms == than_ms then
        ms, than_ms = sequence, than_sequence
    end
    return #ms > #than_ms or (#ms == #than_ms and ms > than_ms) -- of 64 bits: a number would round them
end

local group = nil
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[2])
if groups.err then -- no stream: nothing was ever accepted since Redis lost its memory
    return {'adopted', '', 0}
end
for _, each in ipairs(groups) do
    local facts = facts_of(each)
    if facts['name'] == ARGV[2] then
        group = facts
    end
end
if not group then -- the next read makes it, from the beginning
    return {'adopted', '', 0}
end
local delivered = group['last-delivered-id']
local last = facts_of(redis.call('XINFO', 'STREAM', KEYS[2]))['last-generated-id']
if beyond(delivered, last) then -- whatever comes would count as delivered
    redis.call('XGROUP', 'SETID', KEYS[2], ARGV[2], last)
    delivered = last
end
if ARGV[4] == '-' then
    local rest = redis.call('XLEN', KEYS[2]) - group['pending']
    if rest >= 0 and rest < tonumber(ARGV[5]) then
        local unread = #redis.call('XRANGE', KEYS[2], '(' .. delivered, '+', 'COUNT', rest + 1)
        if unread == rest then
            return {'adopted', '', 0}
        end
    end
end
local found = redis.call('XRANGE', KEYS[2], ARGV[4], delivered, 'COUNT', ARGV[5])
local nobodys = {}
for _, entry in ipairs(found) do
    if #redis.call('XPENDING', KEYS[2], ARGV[2], entry[1], entry[1], 1) == 0 then
        nobodys[#nobodys + 1] = entry[1]
    end
end
for _, entry in ipairs(nobodys) do
    redis.call('XCLAIM', KEYS[2], ARGV[2], ARGV[3], '0', entry, 'RETRYCOUNT', '0', 'FORCE', 'JUSTID')
end
local cursor = ''
if #found == tonumber(ARGV[5]) then
    cursor = '(' .. found[#found][1]
end
return {'adopted', cursor, #nobodys}
