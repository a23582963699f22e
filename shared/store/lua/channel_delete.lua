#!lua flags=allow-oom
-- Ends a channel of one kind, with its queue and its lease; leaves a channel of another kind alone.
-- KEYS: channel, lease, queue, receipts     ARGV: kind
-- Reply: {'deleted', generation, owner or '', notifications lost} | {'absent'}
--include receipts
--include end_channel
local channel = redis.call('HMGET', KEYS[1], 'kind', 'generation')
if channel[1] ~= ARGV[1] then return {'absent'} end
local owner = redis.call('GET', KEYS[2]) or ''
return {'deleted', channel[2], owner, end_channel(KEYS[1], KEYS[2], KEYS[3], KEYS[4], 'channel-deleted')}
