#!lua flags=allow-oom
-- Takes a name away from a channel that has another one now. Not while the routing table has it for the channel: it may
-- have got the name again since the caller looked.
-- KEYS: names, routing     ARGV: name, id, how the table's value begins that has this name
-- Reply: 1, or 0 when the name stays
-- Touches at most: 1 field and 1 member.
local value = redis.call('HGET', KEYS[2], 'native:' .. ARGV[2])
if value and string.sub(value, 1, #ARGV[3]) == ARGV[3] then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1] .. '\0' .. ARGV[2])
