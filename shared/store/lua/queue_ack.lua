#!lua flags=allow-oom
-- Forgets the front of a queue, for the owner only: an old owner may still send, but never ack.
-- Idempotent: what is gone already is not counted again.
-- KEYS: lease, queue, receipts     ARGV: owner, the first entry to keep
-- Returns the number acked, or -1 when ARGV[1] is not the owner
--include receipts
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local acked = redis.call('XTRIM', KEYS[2], 'MINID', ARGV[2])
if acked > 0 then tell(KEYS[3], '-', '(' .. ARGV[2], 'acked') end
return acked
