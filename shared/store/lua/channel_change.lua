#!lua
-- Changes fields of a native channel and of its record; '' removes a field. The limits of the queue keep the mark of a
-- pause (channel_pause.lua).
-- KEYS: key, channel
-- ARGV: generation, number of pairs for the record, then pairs: field, value, for the record and then for the channel
-- Reply: 1, or 0 when the channel has ended
-- Touches at most: the fields given, and 2 more.
if redis.call('HGET', KEYS[2], 'generation') ~= ARGV[1] then return 0 end
local of_record = 2 + 2 * tonumber(ARGV[2])
for i = 3, #ARGV, 2 do
  local name, field, value = i <= of_record and KEYS[1] or KEYS[2], ARGV[i], ARGV[i + 1]
  if field == 'limits' and redis.call('HEXISTS', name, 'paused') == 1 then value = (value == '' and ' ' or value) .. 'p' end
  if value == '' then redis.call('HDEL', name, field) else redis.call('HSET', name, field, value) end
end
return 1
