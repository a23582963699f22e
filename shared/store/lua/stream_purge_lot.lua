#!lua flags=allow-oom
-- Drops a lot of what a purge has taken out of a retained log, with the names by which the events are found.
-- KEYS: the purged log, stream, the topics of this place
-- Reply: 1 when there are more, else 0
-- Touches at most: 128 entries with their names.
--include stream_entries
local LOT = 128
local page = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', LOT)
forget_events(string.sub(KEYS[3], 1, -2) .. '-event:', KEYS[2], page)
if #page < LOT then
  redis.call('UNLINK', KEYS[1])
  return 0
end
redis.call('XTRIM', KEYS[1], 'MAXLEN', redis.call('XLEN', KEYS[1]) - LOT)
return 1
