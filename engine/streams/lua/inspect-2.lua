#!lua flags=no-writes
-- inspect-2: how a partition's stream stands, at one instant. For the auditor; changes nothing.
-- KEYS  1 command stream  2 lease
-- ARGV  1 group  2 idle for at least this many ms  3 entries max
-- Returns {entries, pending, unread (counted up to the max), added since the last one delivered (-1: Redis cannot tell),
-- id of the last one delivered, highest id deleted by name, id of the first or "", lease or "", ms the lease has left
-- (-1: for ever), pending ids that are not in the stream any more, pending {id, consumer, idle ms} idle for so long}.
-- Atomic, because figures of a stream that moves fit together at one instant only.
local function facts_of(reply)
    local facts = {}
    for index = 1, #reply, 2 do
        facts[reply[index]] = reply[index + 1]
    end
    return facts
end

local lease = redis.call('GET', KEYS[2]) or ''
local lease_ms = redis.call('PTTL', KEYS[2])
local reply = redis.pcall('XINFO', 'STREAM', KEYS[1])
if reply.err then -- no command ever came here since Redis was new
    return {0, 0, 0, -1, '0-0', '0-0', '', lease, lease_ms, {}, {}}
end
local stream = facts_of(reply)
local delivered, pending, lag = '0-0', 0, -1
local groups = redis.call('XINFO', 'GROUPS', KEYS[1])
for _, each in ipairs(groups) do
    local group = facts_of(each)
    if group['name'] == ARGV[1] then
        delivered, pending = group['last-delivered-id'], group['pending']
        -- Not its `lag`: Redis gives none while the newest entry that was read is deleted and older ones are not.
        lag = group['entries-read'] and stream['entries-added'] - group['entries-read'] or -1
    end
end
local unread = #redis.call('XRANGE', KEYS[1], '(' .. delivered, '+', 'COUNT', ARGV[3])
local gone, idle = {}, {}
if pending > 0 then
    if stream['length'] - pending < unread then
        for _, each in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[3])) do
            if #redis.call('XRANGE', KEYS[1], each[1], each[1]) == 0 then
                gone[#gone + 1] = each[1]
            end
        end
    end
    for _, each in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[2], '-', '+', ARGV[3])) do
        idle[#idle + 1] = {each[1], each[2], each[3]}
    end
end
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
return {
    stream['length'], pending, unread, lag, delivered, stream['max-deleted-entry-id'] or '0-0',
    first[1] and first[1][1] or '', lease, lease_ms, gone, idle,
}
