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
--         by how many bytes the attempts have grown, 1 if the batch had the last entry of the queue, else 0}
-- Touches at most: 460 entries, or fewer by two for each of their receipts, and 18 attempts.
--include attempts
--include entry_size
--include now
local LOT = 460
local owner, generation, batch_until, has_receipts, batch_limit, grows_from, trouble, tail, total, first_total, known,
  failed_attempts, failing_since_ms, next_attempt_ms, timed_out, refused_entry, head = unpack(redis.call('HMGET', KEYS[1],
    'owner', 'generation', 'batch_until', 'receipts', 'batch_limit', 'grows_from_ms', 'trouble', 'tail', 'total',
    'first_total', 'attempts', 'failed_attempts', 'failing_since_ms', 'next_attempt_ms', 'timed_out', 'refused_entry',
    'head'))
if owner ~= ARGV[1] or generation ~= ARGV[2] then return {-1, 0, 0} end
local grown, now
grown, known, now = add_attempt(KEYS[4], known, ARGV[6], ARGV[7], ARGV[8], ARGV[9])
if failed_attempts or failing_since_ms or next_attempt_ms or timed_out or refused_entry or head then
  redis.call('HDEL', KEYS[1], 'failed_attempts', 'failing_since_ms', 'next_attempt_ms', 'timed_out', 'refused_entry',
    'refused_times', 'head')
end
-- That batch is over: 0-0 in place of a command that removes the field.
local is_whole = batch_until == ARGV[3]
redis.call('HSET', KEYS[1], 'acked_ms', now, 'attempts', known, 'batch_until', is_whole and '0-0' or batch_until or '0-0')
if trouble then
-- Included here and below: these are rare, and Redis spends time on making functions.
--include notices
  redis.call('HDEL', KEYS[1], 'trouble')
  add_notice(KEYS[1], 'recovered', '{}')
end
if batch_limit and ARGV[5] ~= '' and tonumber(grows_from or 0) <= now then
  -- 0: no batch of the new size was accepted yet.
  redis.call('HSET', KEYS[1], 'batch_limit', ARGV[5], 'grows_from_ms', 0)
  if ARGV[5] == '0' then redis.call('HDEL', KEYS[1], 'batch_limit') end
elseif grows_from == '0' then
  redis.call('HDEL', KEYS[1], 'grows_from_ms')
end
-- What batch_take.lua has noted was in the queue then, and Redis loses its last writes first: so it is still there, or has
-- been dropped with what is before it. Of a part of a batch nothing is noted.
if not is_whole and #redis.call('XRANGE', KEYS[2], ARGV[3], ARGV[3]) == 0 then return {0, grown, 0} end
local is_last = tail == ARGV[3] and 1 or 0
if not has_receipts then
  -- The usual case: by its bound the queue has no more than a lot, since each entry counts so many bytes.
  if first_total and total - first_total <= LOT * ENTRY_BYTES then
    return {redis.call('XTRIM', KEYS[2], 'MINID', ARGV[4]), grown, is_last}
  end
  local length = redis.call('XLEN', KEYS[2])
  if length <= LOT then
    local acked = redis.call('XTRIM', KEYS[2], 'MINID', ARGV[4])
    -- The bound is too low, and says nothing of an empty queue.
    if acked == length then redis.call('HDEL', KEYS[1], 'first', 'first_total') end
    return {acked, grown, is_last}
  end
end
--include entries
--include receipts
--include trim_front
-- A batch fits into a lot, with its receipts. After a crash of Redis there may be more: what was acked before is back.
local tracked = has_receipts and #redis.call('XRANGE', KEYS[3], '-', ARGV[3], 'COUNT', RECEIPTS_LOT) or 0
local acked, is_all = trim_front(KEYS[2], ARGV[4], LOT - 2 * tracked)
if tracked > 0 then
  local left = not is_all and first_entry(KEYS[2])
  mark_receipts(KEYS[1], KEYS[3], '-', '(' .. (left and left[1] or ARGV[4]), 'acked')
end
return {is_all and acked or -2 - acked, grown, is_all and is_last or 0}
