#!lua
-- Records which channels an event is queued for, unless its request is late: the receipt of a repetition stays then.
-- Requests without a deadline use a plain SET.
-- KEYS: receipt     ARGV: record, TTL in ms, deadline in ms
-- Reply: 'opened' | 'late'
-- Touches at most: 1 key.
--include late
if is_late(ARGV[3]) then return 'late' end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 'opened'
