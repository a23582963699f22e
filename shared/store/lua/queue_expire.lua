#!lua flags=allow-oom
-- Drops from the front of a queue what is too old, and counts it; tells what is left.
-- KEYS: channel, queue, receipts, lease     ARGV: the first place that is not too old
-- Returns {dropped, the first place left or '', owner or ''}
--include receipts
local dropped = redis.call('XTRIM', KEYS[2], 'MINID', ARGV[1])
if dropped > 0 then tell(KEYS[3], '-', '(' .. ARGV[1], 'dropped', 'too-old') end
if dropped > 0 and redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HINCRBY', KEYS[1], 'dropped', dropped) end
local head = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
return {dropped, head and head[1] or '', redis.call('GET', KEYS[4]) or ''}
