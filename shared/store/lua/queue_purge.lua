#!lua flags=allow-oom
-- Drops and counts everything pending in a queue, however much it is: Redis frees it beside its work. The channel, its
-- lease and its tail stay. The queue that is made anew gets the last id of the old one: later entries come behind it, so
-- an owner that has sent entries goes on, and does not take them for lost writes. What a fetch has got is no longer its
-- own: its ack must not remove what comes next.
-- For the receipts of what was dropped it records when, and up to which entry (receipts.py reads it).
-- KEYS: channel, queue, receipts     ARGV: generation, '' for any
-- Reply: the number dropped, or -1 without such a channel
-- Touches at most: 14 fields, 1 entry, and 4 names.
--include now
local ENDED_TTL_MS = 60 * 60 * 1000
local generation, tail, has_receipts = unpack(redis.call('HMGET', KEYS[1], 'generation', 'tail', 'receipts'))
if not generation or (ARGV[1] ~= '' and ARGV[1] ~= generation) then return -1 end
redis.call('HDEL', KEYS[1], 'fetch_lease', 'fetch_until', 'ack_by_ms', 'fetched', 'nacked', 'nacked_until_ms')
local dropped = redis.call('XLEN', KEYS[2])
if dropped == 0 then return 0 end
redis.call('UNLINK', KEYS[2], (string.gsub(KEYS[1], 'channel$', 'taken')))
redis.call('XADD', KEYS[2], tail, 'purged', 1)
redis.call('XTRIM', KEYS[2], 'MAXLEN', 0)
redis.call('HINCRBY', KEYS[1], 'dropped', dropped)
redis.call('HDEL', KEYS[1], 'first', 'first_total', 'batch_until', 'receipts')
if has_receipts then
  local ended = string.gsub(KEYS[1], 'channel$', 'ended')
  redis.call('HSET', ended, 'purged:' .. generation, string.format('%.0f purged %s', now_ms(), tail))
  redis.call('PEXPIRE', ended, ENDED_TTL_MS)
  redis.call('UNLINK', KEYS[3])
end
return dropped
