#!lua
-- accept-5: make a request accepted work, once. Keeps I6 (same key, same operation), I10 (refused before acceptance)
-- and I12 (nothing is trimmed to make room).
-- KEYS  1 idempotency record  2 open operations (hash)  3 command stream  4 entries per merchant (hash)  5 dead letters
-- ARGV  1 operation id  2 record  3 snapshot  4 backlog limit  5 open operations limit  6 merchant  7 its backlog limit
--       8.. fields of the entry
-- Returns {"accepted", entry id} | {"known", record, 0 when it is unsettled and its entry and dead letter are gone, else 1}
--         | {"full", backlog} | {"share", the merchant's backlog} | {"busy", open operations}
-- Atomic, because a record without its entry would be a promise nobody keeps, and an entry without its record twice the
-- work. The record is looked up first: a replay is answered at full backlog too. It names its entry, which is added first:
-- whatever refuses one of the writes, no record is left without one.
local known = redis.call('GET', KEYS[1])
if known then
    if not string.find(known, '"status":null', 1, true) then -- settled: nothing is to be done
        return {'known', known, 1}
    end
    local entry = string.match(known, '^{"entry":"(%d+%-%d+)"')
    if entry then
        local held = redis.pcall('XRANGE', KEYS[3], entry, entry)
        if held.err or #held > 0 then
            return {'known', known, 1}
        end
    end
    local shown = redis.pcall('HGET', KEYS[2], ARGV[1])
    local letter = type(shown) == 'string' and string.match(shown, '^[^\n]*"dead_letter":"(%d+%-%d+)"')
    if letter and #redis.call('XRANGE', KEYS[5], letter, letter) > 0 then
        return {'known', known, 1}
    end
    return {'known', known, 0}
end
local backlog = redis.call('XLEN', KEYS[3])
if backlog >= tonumber(ARGV[4]) then
    return {'full', backlog}
end
local share = tonumber(redis.call('HGET', KEYS[4], ARGV[6]) or 0)
if share >= tonumber(ARGV[7]) then
    return {'share', share}
end
local open = redis.call('HLEN', KEYS[2])
if open >= tonumber(ARGV[5]) then
    return {'busy', open}
end
local entry = redis.call('XADD', KEYS[3], '*', unpack(ARGV, 8))
redis.call('SET', KEYS[1], '{"entry":"' .. entry .. '",' .. string.sub(ARGV[2], 2))
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('HINCRBY', KEYS[4], ARGV[6], 1)
return {'accepted', entry}
