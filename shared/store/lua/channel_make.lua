#!lua
-- Makes a native channel with its record, in one step. It is unfinished until the caller has written everything else.
-- KEYS: key, channel
-- ARGV: number of pairs for the record, then pairs: field, value, for the record and then for the channel
-- Reply: 1, or 0 when there is something under this id
-- Touches at most: the fields given, and 5 more.
--include now
if redis.call('EXISTS', KEYS[1], KEYS[2]) > 0 then return 0 end
local of_record = 2 * tonumber(ARGV[1])
local now = now_ms()
redis.call('HSET', KEYS[1], 'native', 1, 'created_at_ms', now, unpack(ARGV, 2, of_record + 1))
redis.call('HSET', KEYS[2], 'created_at_ms', now, 'unfinished', 1, unpack(ARGV, of_record + 2))
return 1
