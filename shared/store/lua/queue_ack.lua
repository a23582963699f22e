#!lua flags=allow-oom
-- Acknowledges the front of a queue for the owner: a previous owner may still send, but never ack.
-- Idempotent: entries that are gone are not counted again. The channel's bound of where the queue
-- begins stays as it is, as a lower bound may be too low; it goes when it says nothing more of an empty queue.
-- KEYS: channel, queue, receipts     ARGV: owner, the first entry to keep
-- Reply: the number acked; -1 when ARGV[1] is not the owner; -2 minus the number acked when there are more to ack
-- Touches at most: 480 entries, or 150 with their receipts.
--include entry_size
local LOT = 480
local channel = redis.call('HMGET', KEYS[1], 'owner', 'receipts', 'total', 'first_total')
if channel[1] ~= ARGV[1] then return -1 end
if not channel[2] then
  -- The usual case: by its bound the queue has no more than a lot, since each entry counts so many bytes.
  local most_bytes = channel[4] and channel[3] - channel[4] or 0
  if most_bytes <= LOT * ENTRY_BYTES then return redis.call('XTRIM', KEYS[2], 'MINID', ARGV[2]) end
  local length = redis.call('XLEN', KEYS[2])
  if length <= LOT then
    local acked = redis.call('XTRIM', KEYS[2], 'MINID', ARGV[2])
    if acked == length then redis.call('HDEL', KEYS[1], 'first', 'first_total') end
    return acked
  end
end
-- Included here: Redis spends as much on making functions as on the usual case.
--include entries
--include receipts
--include trim_front
local acked, is_all = trim_front(KEYS[2], ARGV[2], channel[2] and RECEIPTS_LOT or LOT)
if acked > 0 and channel[2] then
  local left = not is_all and first_entry(KEYS[2])
  mark_receipts(KEYS[1], KEYS[3], '-', '(' .. (left and left[1] or ARGV[2]), 'acked')
end
return is_all and acked or -2 - acked
