#!lua flags=allow-oom
-- Makes channels due now. Each call leaves a trace in the score, also when the channel was due already: a reaper that
-- has read the score before may then not replace it (due_reschedule.lua).
-- KEYS: due channels     ARGV: API key id...
-- Reply: 1
-- Touches at most: the members in ARGV, 128.
--include now
local now, scores, pairs_of = now_ms(), redis.call('ZMSCORE', KEYS[1], unpack(ARGV)), {}
for i, id in ipairs(ARGV) do
  pairs_of[2 * i - 1] = string.format('%.0f', math.floor(math.min(now, tonumber(scores[i] or now))) - 1)
  pairs_of[2 * i] = id
end
redis.call('ZADD', KEYS[1], unpack(pairs_of))
return 1
