#!lua flags=no-writes,allow-oom
-- Tells what is known of the retained log of a topic.
-- KEYS: stream, state
-- Reply: {} when there is none | {epoch, first offset to be had or '', last offset ever, offset of the last one that is
--        gone or '', why it is, entries, bytes}
-- Touches at most: 2 entries.
--include stream_bounds
local epoch, last, trimmed, reason, age_ms, bytes =
  unpack(redis.call('HMGET', KEYS[2], 'epoch', 'last', 'trimmed', 'reason', 'age_ms', 'bytes'))
if not epoch then return {} end
local first
first, trimmed, reason = bounds_of(KEYS[1], last, trimmed, reason, age_ms)
if not first then return {epoch, '', last, trimmed, reason, 0, 0} end
return {epoch, first[1], last, trimmed, reason, redis.call('XLEN', KEYS[1]), tonumber(bytes)}
