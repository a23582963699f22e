#!lua
-- Changes fields of a native channel and of its record; '' removes a field.
-- KEYS: key, channel
-- ARGV: generation, number of pairs for the record, then pairs: field, value, for the record and then for the channel
-- Reply: 1, or 0 when the channel has ended
-- Touches at most: the fields given.
if redis.call('HGET', KEYS[2], 'generation') ~= ARGV[1] then return 0 end
local of_record = 2 + 2 * tonumber(ARGV[2])
for i = 3, #ARGV, 2 do
  local name = i <= of_record and KEYS[1] or KEYS[2]
  if ARGV[i + 1] == '' then redis.call('HDEL', name, ARGV[i]) else redis.call('HSET', name, ARGV[i], ARGV[i + 1]) end
end
return 1
