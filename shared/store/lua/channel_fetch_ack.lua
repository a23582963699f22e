#!lua flags=allow-oom
-- Acknowledges the front of a pull channel's queue for a fetch; the rest of what it got stays its own.
-- Only the last fetch that got something may: an older one would remove what it does not know. Whether its time is over
-- makes no difference, as no other fetch has got anything since. Idempotent: what is gone is not counted again.
-- KEYS: channel, queue, receipts     ARGV: token, the last entry to ack, the first entry to keep
-- Reply: {'acked', the number} | {'ended'} when another fetch, a nack or a purge has ended this one
--      | {'beyond'} when this fetch did not get the entry | {'absent'}
-- Touches at most: 101 entries and their receipts.
--include now
--include entry_order
--include entries
--include receipts
local MOST = 100
local kind, lease, fetch_until, has_receipts =
  unpack(redis.call('HMGET', KEYS[1], 'kind', 'fetch_lease', 'fetch_until', 'receipts'))
if not kind then return {'absent'} end
if lease ~= ARGV[1] then return {'ended'} end
if is_after(ARGV[2], fetch_until) then return {'beyond'} end
local acked = redis.call('XTRIM', KEYS[2], 'MINID', ARGV[3])
redis.call('HSET', KEYS[1], 'released_at_ms', now_ms())
if has_receipts then mark_receipts(KEYS[1], KEYS[3], '-', ARGV[2], 'acked') end
local left = redis.call('XRANGE', KEYS[2], '-', fetch_until, 'COUNT', MOST)
if acked > 0 then write_first(KEYS[1], left[1] or first_entry(KEYS[2]), 0) end
if #left > 0 then
  redis.call('HSET', KEYS[1], 'fetched', #left)
else
  redis.call('HDEL', KEYS[1], 'ack_by_ms', 'fetched')
end
return {'acked', acked}
