#!lua flags=allow-oom
-- Ends a channel of one kind, with its queue and its lease. A channel of another kind is left alone.
-- KEYS: channel, lease, queue, receipts     ARGV: kind
-- Returns {'deleted', generation, owner or '', notifications lost} | {'absent'}
--include receipts
local found = redis.call('HMGET', KEYS[1], 'kind', 'generation')
if found[1] ~= ARGV[1] then return {'absent'} end
local owner = redis.call('GET', KEYS[2]) or ''
local lost = redis.call('XLEN', KEYS[3])
tell(KEYS[4], '-', '+', 'dropped', 'channel-deleted')
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
return {'deleted', found[2], owner, lost}
