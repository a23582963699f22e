#!lua flags=allow-oom
-- Acknowledges one entry of a native webhook that has several requests at once, wherever it stands in the queue, for the
-- owner, and records the attempt. Ends the webhook's failing state; a webhook that was in trouble, with a notice to its
-- account, has recovered.
-- KEYS: channel, queue, receipts, attempts, taken
-- ARGV: owner, generation, mark of the entry, and of the attempt: outcome, event ids, facts, details
-- Reply: {1, or 0 when the entry is gone, or -1 when ARGV[1] is not the owner, by how many bytes the attempts have grown}
-- Touches at most: 1 entry with its receipt, 1 mark and 18 attempts.
--include attempts
--include now
--include remove_entry
local owner, generation, has_receipts, trouble, hold_ms, disabled, known, failed_attempts, failing_since_ms, planned_ms =
  unpack(redis.call('HMGET', KEYS[1], 'owner', 'generation', 'receipts', 'trouble', 'hold_ms', 'disabled', 'attempts',
    'failed_attempts', 'failing_since_ms', 'planned_ms'))
if owner ~= ARGV[1] or generation ~= ARGV[2] then return {-1, 0} end
local entry_id = string.match(ARGV[3], '^%S+')
local grown, now
grown, known, now = add_attempt(KEYS[4], known, ARGV[4], ARGV[5], ARGV[6], ARGV[7])
if failed_attempts or failing_since_ms or planned_ms then
  redis.call('HDEL', KEYS[1], 'failed_attempts', 'failing_since_ms', 'planned_ms')
end
-- It is not down: nothing waits for the end of the pause.
if hold_ms then redis.call('HDEL', KEYS[1], 'hold_ms', 'next_attempt_ms') end
-- While it is disabled it gets nothing: an answer of before that is no recovery.
if trouble and not disabled then
-- Included here and below: these are rare, and Redis spends time on making functions.
--include notices
  redis.call('HDEL', KEYS[1], 'trouble')
  add_notice(KEYS[1], 'recovered', '{}')
end
redis.call('HSET', KEYS[1], 'acked_ms', now, 'attempts', known)
redis.call('ZREM', KEYS[5], ARGV[3])
if not remove_entry(KEYS[1], KEYS[2], entry_id) then return {0, grown} end
if has_receipts then
--include receipts
  mark_receipts(KEYS[1], KEYS[3], entry_id, entry_id, 'acked')
end
return {1, grown}
