#!lua flags=allow-oom
-- Drops from the front of a queue what is too old, and counts it.
-- KEYS: channel, queue, receipts     ARGV: the first place that is not too old
-- Returns the number dropped
--include receipts
local dropped = redis.call('XTRIM', KEYS[2], 'MINID', ARGV[1])
if dropped > 0 then tell(KEYS[3], '-', '(' .. ARGV[1], 'dropped', 'too-old') end
if dropped > 0 and redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HINCRBY', KEYS[1], 'dropped', dropped) end
return dropped
