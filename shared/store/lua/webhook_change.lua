#!lua
-- Gives a native webhook other settings, if it still has those from which they were made: two changes at once keep what
-- each leaves out. What is pending is due at once, in batches of any size. A disabled webhook stays disabled.
-- KEYS: channel     ARGV: generation, the config version before, then pairs: field, value
-- Reply: 'written' | 'changed' by another | 'absent'
-- Touches at most: the fields given, and 19 more.
--include now
local generation, config_version, taken_until = unpack(redis.call('HMGET', KEYS[1], 'generation', 'config_version',
  'taken_until'))
if generation ~= ARGV[1] then return 'absent' end
if (config_version or '') ~= ARGV[2] then return 'changed' end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
-- What one receiver refused says nothing about the next one.
redis.call('HDEL', KEYS[1], 'failed_attempts', 'failing_since_ms', 'next_attempt_ms', 'head', 'batch_until', 'rate_at_ms',
  'hold_ms', 'asked_ms',
  'body_limit_bytes', 'body_limit_until_ms', 'batch_limit', 'grows_from_ms', 'timed_out', 'refused_entry', 'refused_times')
-- What waits behind failed attempts is due, and begins anew (entry_take.lua).
if taken_until then redis.call('HSET', KEYS[1], 'hurry', 1, 'anew_ms', now_ms()) end
return 'written'
