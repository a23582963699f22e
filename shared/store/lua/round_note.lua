#!lua flags=allow-oom
-- Writes notes of the reaper. A script, because a full Redis refuses a plain HSET, and must not stop what frees memory.
-- KEYS: notes     ARGV: pairs: name, value
-- Reply: 1
-- Touches at most: the notes given, 7.
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
