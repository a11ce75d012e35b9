#!lua flags=allow-oom
-- leave-1: a worker says goodbye; its share goes to the others at their next heartbeat.
-- KEYS  1 workers (zset)
-- ARGV  1 worker
-- Returns 1 when it was listed.
-- One command; a script so that it is allowed at full memory.
return redis.call('ZREM', KEYS[1], ARGV[1])
