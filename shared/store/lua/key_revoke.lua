#!lua flags=allow-oom
-- Deletes an API key with its channel, queue and lease. Later claims and appends find no channel and are refused.
-- KEYS: key, channel, queue, receipts
-- Reply: {'revoked', owner or '', generation of its channel or ''} | {'absent'}
-- Touches at most: the names of the channel; Redis frees its queue beside its work.
--include end_channel
local channel = redis.call('HMGET', KEYS[2], 'owner', 'generation')
if redis.call('DEL', KEYS[1]) == 0 then return {'absent'} end
end_channel(KEYS[2], KEYS[3], KEYS[4], 'key-revoked')
return {'revoked', channel[1] or '', channel[2] or ''}
