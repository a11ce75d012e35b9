-- drop-3: throw a dead letter away; what it alone kept open is open no longer, so its key can be used again.
-- KEYS  1 dead-letter stream  2 open operations of the payment (hash)  3 idempotency record (string)
-- ARGV  1 id in the dead-letter stream  2 operation ("" when the ledger has it, or the letter names none)
-- Returns {"gone"} | {"dropped", 1 when the key is free again else 0}
-- Atomic, because a letter dropped while its operation stays open would leave a key that is never answered. An open entry
-- that is not this letter's own is in somebody's hands, and is left alone with its record.
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
if #found == 0 then
    return {'gone'}
end
redis.call('XDEL', KEYS[1], ARGV[1])
if ARGV[2] == '' then
    return {'dropped', 0}
end
local shown = redis.call('HGET', KEYS[2], ARGV[2])
if shown then
    local readable, facts = pcall(cjson.decode, string.match(shown, '^([^\n]*)\n') or '')
    if not readable or type(facts) ~= 'table' or facts['dead_letter'] ~= ARGV[1] then
        return {'dropped', 0}
    end
    redis.call('HDEL', KEYS[2], ARGV[2])
end
local record = redis.call('GET', KEYS[3])
if record then
    local readable, facts = pcall(cjson.decode, record)
    if readable and type(facts) == 'table' and type(facts['status']) == 'number' then
        return {'dropped', 0}
    end
    redis.call('DEL', KEYS[3])
end
return {'dropped', 1}
