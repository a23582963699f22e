#!lua flags=allow-oom
-- Acknowledges the front of a queue for the owner: a previous owner may still send, but never ack.
-- Idempotent: entries that are gone are not counted again.
-- KEYS: lease, queue, receipts     ARGV: owner, the first entry to keep
-- Reply: the number acked, or -1 when ARGV[1] is not the owner
--include receipts
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local acked = redis.call('XTRIM', KEYS[2], 'MINID', ARGV[2])
if acked > 0 then mark_receipts(KEYS[3], '-', '(' .. ARGV[2], 'acked') end
return acked
