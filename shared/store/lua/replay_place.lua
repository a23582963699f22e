#!lua
-- Gives a channel a place among the account's replays, if one is free; a place ends when its replay was not worked at for
-- so long.
-- KEYS: the account's replays     ARGV: channel, most, ms
-- Reply: 1, or 0 when none is free
-- Touches at most: the places (10; replays.py).
--include now
local now = now_ms()
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
