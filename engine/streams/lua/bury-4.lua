#!lua flags=allow-oom
-- bury-4: move an entry that cannot be handled to the partition's dead-letter stream, whole, and say so where its
-- operation is open: it waits for a person now.
-- KEYS  1 command stream  2 dead-letter stream  3 open operations of the payment (hash)  4 entries per merchant (hash)
-- ARGV  1 group  2 entry id  3 operation ("" when the entry names none)  4 snapshot, should the operation not be open
--       ("" to leave it so)  5 "1" to keep the entry's own fields as they are, "" when those below stand for them
--       6 merchant ("" where the entry does not say)  7.. fields of the dead letter
-- Returns the dead letter's id, or "" when the entry is gone: it was buried before, and the reply was lost.
-- Atomic, because an entry in neither stream would be lost, and one in both handled again.
local found = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])
if #found == 0 then
    redis.pcall('XACK', KEYS[1], ARGV[1], ARGV[2])
    return ''
end
local letter = {unpack(ARGV, 7)}
if ARGV[5] == '1' then
    for index = 1, #found[1][2], 2 do
        letter[#letter + 1] = 'was.' .. found[1][2][index]
        letter[#letter + 1] = found[1][2][index + 1]
    end
end
local shown = false
if ARGV[3] ~= '' then
    shown = redis.call('HGET', KEYS[3], ARGV[3])
    if not shown and ARGV[4] ~= '' then
        shown = ARGV[4]
    end
end
local id = redis.call('XADD', KEYS[2], '*', unpack(letter))
if shown then
    local head, body = string.match(shown, '^([^\n]*)\n(.*)$')
    local readable, facts = pcall(cjson.decode, head or '')
    if readable and type(facts) == 'table' then
        facts['dead_letter'] = id
        redis.call('HSET', KEYS[3], ARGV[3], cjson.encode(facts) .. '\n' .. body)
    end
end
redis.pcall('XACK', KEYS[1], ARGV[1], ARGV[2])
local deleted = redis.call('XDEL', KEYS[1], ARGV[2])
if deleted > 0 and redis.call('HINCRBY', KEYS[4], ARGV[6], -deleted) <= 0 then
    redis.call('HDEL', KEYS[4], ARGV[6])
end
return id
