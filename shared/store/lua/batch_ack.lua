#!lua flags=allow-oom
-- Acknowledges a webhook's batch for the owner and records the attempt. Ends the webhook's failing state. A native one that
-- was in trouble, with a notice to its account, has recovered.
-- Acks nothing when the batch's last entry is gone: after a crash of Redis new entries may have ids below it.
-- Lets the limit of the number grow, unless it has grown lately and that batch timed out (batch_fail.lua). Only where
-- there is one: the webhook may have been put meanwhile, which forgets it.
-- KEYS: channel, queue, receipts, attempts
-- ARGV: owner, generation, last entry of the batch, the first entry to keep, a new limit of the number, 0 to remove it or
--       '' to leave it, and of the attempt: outcome, event ids, facts, details
-- Reply: {the number acked; -1 when ARGV[1] is not the owner; -2 minus the number acked when there are more to ack,
--         by how many bytes the attempts have grown}
-- Touches at most: 460 entries, or fewer by two for each of their receipts, and 18 attempts.
--include attempts
--include now
--include entries
--include receipts
--include trim_front
--include notices
local LOT = 460
local owner, generation, batch_until, has_receipts, batch_limit, grows_from, trouble = unpack(redis.call('HMGET', KEYS[1],
  'owner', 'generation', 'batch_until', 'receipts', 'batch_limit', 'grows_from_ms', 'trouble'))
if owner ~= ARGV[1] or generation ~= ARGV[2] then return {-1, 0} end
local now = now_ms()
local grown = add_attempt(KEYS[4], now, ARGV[6], ARGV[7], ARGV[8], ARGV[9])
redis.call('HDEL', KEYS[1], 'failed_attempts', 'failing_since_ms', 'next_attempt_ms', 'timed_out', 'refused_entry',
  'refused_times', 'head')
if trouble then
  redis.call('HDEL', KEYS[1], 'trouble')
  add_notice(KEYS[1], 'recovered', '{}')
end
redis.call('HSET', KEYS[1], 'acked_ms', now)
if batch_limit and ARGV[5] ~= '' and tonumber(grows_from or 0) <= now then
  -- 0: no batch of the new size was accepted yet.
  redis.call('HSET', KEYS[1], 'batch_limit', ARGV[5], 'grows_from_ms', 0)
  if ARGV[5] == '0' then redis.call('HDEL', KEYS[1], 'batch_limit') end
elseif grows_from == '0' then
  redis.call('HDEL', KEYS[1], 'grows_from_ms')
end
if batch_until == ARGV[3] then redis.call('HDEL', KEYS[1], 'batch_until') end
if #redis.call('XRANGE', KEYS[2], ARGV[3], ARGV[3]) == 0 then return {0, grown} end
-- A batch fits into a lot, with its receipts. After a crash of Redis there may be more: what was acked before is back.
local tracked = has_receipts and #redis.call('XRANGE', KEYS[3], '-', ARGV[3], 'COUNT', RECEIPTS_LOT) or 0
local acked, is_all = trim_front(KEYS[2], ARGV[4], LOT - 2 * tracked)
if tracked > 0 then
  local left = not is_all and first_entry(KEYS[2])
  mark_receipts(KEYS[1], KEYS[3], '-', '(' .. (left and left[1] or ARGV[4]), 'acked')
end
return {is_all and acked or -2 - acked, grown}
