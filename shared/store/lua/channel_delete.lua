#!lua flags=allow-oom
-- Ends a channel of one kind, with its queue and its lease; leaves a channel of another kind alone.
-- KEYS: channel, queue, receipts     ARGV: kind
-- Reply: {'deleted', generation, owner or '', notifications lost} | {'absent'}
-- Touches at most: the names of the channel; Redis frees its queue beside its work.
--include end_channel
local channel = redis.call('HMGET', KEYS[1], 'kind', 'generation', 'owner')
if channel[1] ~= ARGV[1] then return {'absent'} end
return {'deleted', channel[2], channel[3] or '', end_channel(KEYS[1], KEYS[2], KEYS[3], 'channel-deleted')}
