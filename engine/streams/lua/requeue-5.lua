-- requeue-5: give a dead letter's entry back to its partition's commands, as it was, at the end of the stream.
-- KEYS  1 dead-letter stream  2 command stream  3 open operations (hash)  4 idempotency record  5 entries per merchant
-- ARGV  1 id in the dead-letter stream  2 operation  3 merchant
-- Returns {"gone"} | {"settled"} when Redis knows the operation's answer | {"requeued", entry id}
-- Atomic, because an entry in neither stream would be lost, and one in both could be given back twice. The record names
-- the new entry.
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
if #found == 0 then
    return {'gone'}
end
local record = redis.call('GET', KEYS[4])
if record then
    local readable, facts = pcall(cjson.decode, record)
    if readable and type(facts) == 'table' and type(facts['status']) == 'number' then
        return {'settled'}
    end
end
local entry = {}
for index = 1, #found[1][2], 2 do
    if string.sub(found[1][2][index], 1, 4) == 'was.' then
        entry[#entry + 1] = string.sub(found[1][2][index], 5)
        entry[#entry + 1] = found[1][2][index + 1]
    end
end
local id = redis.call('XADD', KEYS[2], '*', unpack(entry))
redis.call('XDEL', KEYS[1], ARGV[1])
if record and string.sub(record, 1, 1) == '{' then
    local rest = string.match(record, '^{"entry":"[^"]*",(.*)$') or string.sub(record, 2)
    redis.call('SET', KEYS[4], '{"entry":"' .. id .. '",' .. rest, 'KEEPTTL')
end
redis.call('HINCRBY', KEYS[5], ARGV[3], 1)
local shown = redis.call('HGET', KEYS[3], ARGV[2])
if shown then
    local head, body = string.match(shown, '^([^\n]*)\n(.*)$')
    local readable, facts = pcall(cjson.decode, head or '')
    if readable and type(facts) == 'table' and facts['dead_letter'] == ARGV[1] then
        facts['dead_letter'] = nil
        redis.call('HSET', KEYS[3], ARGV[2], cjson.encode(facts) .. '\n' .. body)
    end
end
return {'requeued', id}
