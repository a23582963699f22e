#!lua flags=allow-oom
-- Acknowledges a webhook's batch for the owner and records the attempt. Ends the webhook's failing state.
-- Acks nothing when the batch's last entry is gone: after a crash of Redis new entries may have ids below it.
-- KEYS: channel, queue, receipts, attempts
-- ARGV: owner, generation, last entry of the batch, the first entry to keep, attempt, attempts kept, their TTL in ms
-- Reply: the number acked, or -1 when ARGV[1] is not the owner
-- Touches at most: the entries of one batch, and their receipts.
--include receipts
local owner, generation, batch_until, has_receipts =
  unpack(redis.call('HMGET', KEYS[1], 'owner', 'generation', 'batch_until', 'receipts'))
if owner ~= ARGV[1] or generation ~= ARGV[2] then return -1 end
redis.call('LPUSH', KEYS[4], ARGV[5])
redis.call('LTRIM', KEYS[4], 0, ARGV[6] - 1)
redis.call('PEXPIRE', KEYS[4], ARGV[7])
redis.call('HDEL', KEYS[1], 'failed_attempts', 'failing_since_ms', 'next_attempt_ms')
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'acked_ms', time[1] * 1000 + math.floor(time[2] / 1000))
if batch_until == ARGV[3] then redis.call('HDEL', KEYS[1], 'batch_until') end
if #redis.call('XRANGE', KEYS[2], ARGV[3], ARGV[3]) == 0 then return 0 end
if has_receipts then mark_receipts(KEYS[1], KEYS[3], '-', ARGV[3], 'acked') end
return redis.call('XTRIM', KEYS[2], 'MINID', ARGV[4])
