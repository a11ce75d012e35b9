#!lua flags=allow-oom
-- belong-1: whose Redis this is; ours from now on, when it was nobody's (a new one, or one that lost its memory).
-- KEYS  1 installation (string)
-- ARGV  1 the id of our installation
-- Returns the id that stands there now.
-- Atomic, because two installations that begin at once must not both find it free.
local there = redis.call('GET', KEYS[1])
if not there then
    redis.call('SET', KEYS[1], ARGV[1])
    return ARGV[1]
end
return there
