#!lua
-- probe-1: whether this Redis takes what accept writes. A read would be answered by a replica, and at full memory, too.
-- KEYS  1 probe
-- ARGV  1 ms until it is gone
-- Returns "OK", or the error of a command of accept that our user may not run.
-- Atomic, and a script, so that Redis judges it as it judges accept: it must not be allowed at full memory. The key holds a
-- string, so that the commands for other types change nothing: whether they are permitted is judged before that.
local written = redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
redis.call('GET', KEYS[1])
for _, command in ipairs({
    {'XLEN', KEYS[1]}, {'XRANGE', KEYS[1], '-', '+'}, {'XADD', KEYS[1], '*', 'probe', '1'},
    {'HLEN', KEYS[1]}, {'HGET', KEYS[1], 'probe'}, {'HSET', KEYS[1], 'probe', '1'}, {'HINCRBY', KEYS[1], 'probe', 1},
}) do
    local reply = redis.pcall(unpack(command))
    if type(reply) == 'table' and reply.err and not string.find(reply.err, 'WRONGTYPE', 1, true) then
        return redis.error_reply(reply.err)
    end
end
return written
