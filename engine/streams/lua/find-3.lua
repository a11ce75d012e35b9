#!lua flags=no-writes
-- find-3: commands of one merchant that were accepted and are not acknowledged, for look-ups; changes nothing.
-- KEYS  1 command stream  2 dead-letter stream  3 entries per merchant (hash)
-- ARGV  1 merchant  2 how the body of its entries begins  3 field that is searched  4 text to find in it
--       5 entries looked at in each stream, at most  6 entries found, at most
-- Returns {1 when that is all there is else 0, {entry id, 1 in the dead-letter stream else 0, fields} ...}, newest first.
-- Atomic, because an entry that moves between the two streams meanwhile would be seen in neither.
local found, whole = {}, 1

local function fits(fields, prefix)
    local ours, told = false, false
    for index = 1, #fields, 2 do
        local name, value = fields[index], fields[index + 1]
        if name == prefix .. 'body' then
            ours = string.sub(value, 1, #ARGV[2]) == ARGV[2]
        end
        if name == prefix .. ARGV[3] then
            told = string.find(value, ARGV[4], 1, true) ~= nil
        end
    end
    return ours, ours and told
end

-- Looks through a stream until it has seen so many entries of the merchant, or all there are.
local function search(stream, prefix, dead, ours_max)
    local newest, looked_at, ours = '+', 0, 0
    while ours < ours_max do
        local entries = redis.call('XREVRANGE', stream, newest, '-', 'COUNT', 100)
        if #entries == 0 then
            return
        end
        for _, entry in ipairs(entries) do
            if looked_at == tonumber(ARGV[5]) or #found == tonumber(ARGV[6]) then
                whole = 0
                return
            end
            looked_at = looked_at + 1
            local mine, wanted = fits(entry[2], prefix)
            ours = ours + (mine and 1 or 0)
            if wanted then
                found[#found + 1] = {entry[1], dead, entry[2]}
            end
        end
        newest = '(' .. entries[#entries][1]
    end
end

search(KEYS[1], '', 0, tonumber(redis.call('HGET', KEYS[3], ARGV[1]) or 0))
search(KEYS[2], 'was.', 1, math.huge)
return {whole, unpack(found)}
