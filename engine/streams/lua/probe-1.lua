#!lua
-- probe-1: whether this Redis takes writes. A read would be answered by a replica, and at full memory, too.
-- KEYS  1 probe
-- ARGV  1 ms until it is gone
-- Returns "OK".
-- One command; a script, so that Redis judges it as it judges accept: it must not be allowed at full memory.
return redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
