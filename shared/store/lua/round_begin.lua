#!lua flags=allow-oom
-- Begins a round of the reaper, unless another one is under way. One that was killed is over when its time is.
-- `steady_since_ms`: since then rounds have followed each other without a gap, so Redis was there for everybody.
-- KEYS: round     ARGV: token of this round, its time until it must be renewed in ms, the longest gap in ms
-- Reply: {'begun', now in ms, steady since in ms} | {'busy'}
-- Touches at most: 4 fields.
--include now
local round, now = redis.call('HMGET', KEYS[1], 'until_ms', 'ended_ms', 'steady_since_ms'), now_ms()
-- One that ends later than any can was begun before the clock of Redis was set back.
local left = tonumber(round[1] or 0) - now
if left > 0 and left <= tonumber(ARGV[2]) then return {'busy'} end
local steady_since = math.min(tonumber(round[3] or now), now)
if now - tonumber(round[2] or 0) > tonumber(ARGV[3]) then steady_since = now end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'until_ms', now + ARGV[2], 'steady_since_ms', steady_since)
return {'begun', now, steady_since}
