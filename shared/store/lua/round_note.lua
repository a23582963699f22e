#!lua flags=allow-oom
-- Writes notes of the reaper, unless another round has begun: a reaper that was stopped must not move another one's walk.
-- A script also because a full Redis refuses a plain HSET, and must not stop what frees memory.
-- KEYS: round, notes     ARGV: token of this round, then pairs: name, value
-- Reply: 1, or 0 when another round is under way
-- Touches at most: the notes given, 7.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[2], unpack(ARGV, 2))
return 1
