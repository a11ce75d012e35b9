-- KEYS  1 record  2 stream
-- ARGV  1 payment  2 body
if redis.call('SET', KEYS[1], '1', 'NX') then
    return redis.call('XADD', KEYS[2], '*', 'payment', ARGV[1], 'body', ARGV[2])
end
return false
