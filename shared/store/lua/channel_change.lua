#!lua
-- Changes fields of a native channel and of its record; '' removes a field. Each change of the record has a revision, by
-- which the routing table knows the newest (routing_native.lua). The limits of the queue keep the mark of a pause
-- (included/silence.lua).
-- KEYS: key, channel
-- ARGV: generation, the name that the record must have, or '' for any, a revision that the table has, or 0,
--       number of pairs for the record, then pairs: field, value, for the record and then for the channel
-- Reply: {name or '', customer or '', revision}, or {} when the channel has ended or has another name
-- Touches at most: the fields given, and 5 more.
if redis.call('HGET', KEYS[2], 'generation') ~= ARGV[1] then return {} end
local name, revision = unpack(redis.call('HMGET', KEYS[1], 'name', 'revision'))
if ARGV[2] ~= '' and ARGV[2] ~= name then return {} end
local of_record = 4 + 2 * tonumber(ARGV[4])
if of_record > 4 or tonumber(ARGV[3]) > 0 then
  redis.call('HSET', KEYS[1], 'revision', math.max(tonumber(revision or 0), tonumber(ARGV[3])) + 1)
end
for i = 5, #ARGV, 2 do
  local name, field, value = i <= of_record and KEYS[1] or KEYS[2], ARGV[i], ARGV[i + 1]
  if field == 'limits' and string.find(redis.call('HGET', name, field) or '', 'p$') then
    value = (value == '' and ' ' or value) .. 'p'
  end
  if value == '' then redis.call('HDEL', name, field) else redis.call('HSET', name, field, value) end
end
local record = redis.call('HMGET', KEYS[1], 'name', 'customer', 'revision')
return {record[1] or '', record[2] or '', record[3] or '0'}
