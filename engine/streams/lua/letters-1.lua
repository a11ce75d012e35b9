-- letters-1: dead letters of one partition, newest first.
-- KEYS  1 dead-letter stream
-- ARGV  1 newest id ("+", or "(" and an id to begin below it)  2 oldest id  3 letters max  4 "1" with the buried entries
-- Returns a list of {id, fields}.
-- One command and a filter: a list of a hundred letters must not bring their buried entries along.
local letters = redis.call('XREVRANGE', KEYS[1], ARGV[1], ARGV[2], 'COUNT', ARGV[3])
if ARGV[4] == '1' then
    return letters
end
local told = {}
for number, letter in ipairs(letters) do
    local fields = {}
    for index = 1, #letter[2], 2 do
        if string.sub(letter[2][index], 1, 4) ~= 'was.' then
            fields[#fields + 1] = letter[2][index]
            fields[#fields + 1] = letter[2][index + 1]
        end
    end
    told[number] = {letter[1], fields}
end
return told
