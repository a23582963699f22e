#!lua flags=allow-oom
-- Notes that a token key of an account has ended, or a subject was cut off: edges check its connections.
-- Each note has a time of its own, or a second one within a ms would look like the first.
-- KEYS: changes     ARGV: account, ms for which a note is kept
-- Reply: 1
-- Touches at most: 102 members.
--include now
local now = now_ms()
local old = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2], 'LIMIT', 0, 100)
if #old > 0 then redis.call('ZREM', KEYS[1], unpack(old)) end
local last = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0)
redis.call('ZADD', KEYS[1], math.max(now, last + 1), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
