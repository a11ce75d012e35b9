#!lua flags=no-writes,allow-oom
-- permits-0: which commands our user of Redis may not use. Asks and runs none of them, so a replica answers, too.
-- KEYS  none: a user who may not touch our keys is to be answered, too
-- ARGV  1 ... commands, each as one string of words: name, keys or channels, arguments
-- Returns the numbers, from 0, of those that are not permitted.
-- One command; a script, because it alone may ask for its own user: ACL DRYRUN is for administrators.
local missing = {}
for number, command in ipairs(ARGV) do
    local words = {}
    for word in string.gmatch(command, '%S+') do
        words[#words + 1] = word
    end
    if not redis.acl_check_cmd(unpack(words)) then
        missing[#missing + 1] = number - 1
    end
end
return missing
