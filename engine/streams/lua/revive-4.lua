#!lua
-- revive-4: give an accepted operation an entry again, whose own is lost: somebody trimmed or deleted the stream. Keeps
-- I10. Only called when the ledger does not have the operation, and its key was repeated with the same payload.
-- KEYS  1 idempotency record  2 open operations of the payment (hash)  3 command stream  4 entries per merchant (hash)
-- ARGV  1 operation id  2 the record as it was seen  3 record, which gets its new entry  4 snapshot  5 merchant
--       6.. fields of the entry
-- Returns {"revived", entry id} | {"changed"} when the record is not the one that was seen.
-- Atomic, because two edges would add two entries. A record that has not changed is unsettled, its entry still gone and
-- its fingerprint the same. What was shown of the operation stays; no limit refuses what was accepted already.
if redis.call('GET', KEYS[1]) ~= ARGV[2] then
    return {'changed'}
end
local entry = redis.call('XADD', KEYS[3], '*', unpack(ARGV, 6))
redis.call('SET', KEYS[1], '{"entry":"' .. entry .. '",' .. string.sub(ARGV[3], 2))
local shown = redis.call('HGET', KEYS[2], ARGV[1])
if not shown or string.match(shown, '^[^\n]*"dead_letter"') then
    redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])
end
redis.call('HINCRBY', KEYS[4], ARGV[5], 1)
return {'revived', entry}
