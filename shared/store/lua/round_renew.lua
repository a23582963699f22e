#!lua flags=allow-oom
-- Gives the round that is under way more time, or ends it. A round that took too long may have been replaced: it has to
-- stop then, or two reapers would do the same work.
-- KEYS: round     ARGV: token of this round, its time from now on in ms, or '' at its end
-- Reply: 1, or 0 when another round is under way
-- Touches at most: 2 fields.
--include now
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
if ARGV[2] == '' then
  redis.call('HSET', KEYS[1], 'ended_ms', now_ms(), 'until_ms', 0)
else
  redis.call('HSET', KEYS[1], 'until_ms', now_ms() + ARGV[2])
end
return 1
