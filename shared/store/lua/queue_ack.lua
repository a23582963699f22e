#!lua flags=allow-oom
-- Acknowledges the front of a queue for the owner: a previous owner may still send, but never ack.
-- Idempotent: entries that are gone are not counted again. The channel's bound of where the queue
-- begins stays as it is: a lower bound may be too low.
-- KEYS: channel, queue, receipts     ARGV: owner, the first entry to keep
-- Reply: the number acked, or -1 when ARGV[1] is not the owner
-- Touches at most: the entries acked, which is what one connection had in flight, and their receipts.
--include receipts
local channel = redis.call('HMGET', KEYS[1], 'owner', 'receipts')
if channel[1] ~= ARGV[1] then return -1 end
local acked = redis.call('XTRIM', KEYS[2], 'MINID', ARGV[2])
if acked > 0 and channel[2] then mark_receipts(KEYS[1], KEYS[3], '-', '(' .. ARGV[2], 'acked') end
return acked
