#!lua flags=allow-oom
-- Begins a round of the reaper, unless another one is under way. One that was killed is over when its time is.
-- `steady_since_ms`: since then rounds have followed each other without a gap, so every process could reach Redis.
-- `back_since_ms`: the end of the last gap that clients may not have bridged. Redis was away, or was restored from a copy.
-- KEYS: round
-- ARGV: token of this round, its time until it must be renewed in ms, the longest gap in ms, an absence in ms
-- Reply: {'begun', now in ms, steady since in ms, back since in ms or 0} | {'busy'}
-- Touches at most: 5 fields.
--include now
local round, now = redis.call('HMGET', KEYS[1], 'until_ms', 'ended_ms', 'steady_since_ms', 'back_since_ms'), now_ms()
-- One that ends later than any can was begun before the clock of Redis was set back.
local left = tonumber(round[1] or 0) - now
if left > 0 and left <= tonumber(ARGV[2]) then return {'busy'} end
local steady_since = math.min(tonumber(round[3] or now), now)
if now - tonumber(round[2] or 0) > tonumber(ARGV[3]) then steady_since = now end
local back_since = math.min(tonumber(round[4] or 0), now)
if round[2] and now - tonumber(round[2]) > tonumber(ARGV[4]) then back_since = now end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'until_ms', now + ARGV[2], 'steady_since_ms', steady_since,
  'back_since_ms', back_since)
return {'begun', now, steady_since, back_since}
