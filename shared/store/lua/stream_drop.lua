#!lua flags=allow-oom
-- Drops the oldest entries of a retained log with the names by which they are found, a lot of them, and in the end all that
-- is known of the topic.
-- KEYS: stream, state, the topics of this place     ARGV: what names the topic there
-- Reply: 1 when there are more, else 0
-- Touches at most: 128 entries with their names.
--include stream_entries
local LOT = 128
local page = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', LOT)
forget_events(string.sub(KEYS[3], 1, -2) .. '-event:', KEYS[1], page)
if #page == LOT then
  redis.call('XTRIM', KEYS[1], 'MAXLEN', redis.call('XLEN', KEYS[1]) - LOT)
  return 1
end
redis.call('UNLINK', KEYS[1], KEYS[2])
redis.call('ZREM', KEYS[3], ARGV[1])
return 0
