#!lua flags=allow-oom
-- Forgets what a webhook has taken, for the owner only, and notes the delivery. Whatever failed before is over.
-- A queue whose end Redis lost in a crash may have got new entries before the place: they stay.
-- KEYS: channel, lease, queue, receipts, deliveries
-- ARGV: owner, generation, last entry taken, the first entry to keep, delivery, how many are noted, their TTL in ms
-- Returns the number acked, or -1 when ARGV[1] is not the owner
--include receipts
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return -1 end
local channel = redis.call('HMGET', KEYS[1], 'generation', 'batch_until')
if channel[1] ~= ARGV[2] then return -1 end
redis.call('LPUSH', KEYS[5], ARGV[5])
redis.call('LTRIM', KEYS[5], 0, ARGV[6] - 1)
redis.call('PEXPIRE', KEYS[5], ARGV[7])
redis.call('HDEL', KEYS[1], 'failed_attempts', 'failing_since_ms', 'next_attempt_ms')
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'acked_ms', string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)))
if channel[2] == ARGV[3] then redis.call('HDEL', KEYS[1], 'batch_until') end
if #redis.call('XRANGE', KEYS[3], ARGV[3], ARGV[3]) == 0 then return 0 end
tell(KEYS[4], '-', ARGV[3], 'acked')
return redis.call('XTRIM', KEYS[3], 'MINID', ARGV[4])
