#!lua flags=allow-oom
-- Deletes an API key with its channel, queue and lease. Later claims and appends find no key and are refused.
-- KEYS: key, channel, lease, queue, receipts
-- Reply: {'revoked', owner or '', generation of its channel or ''} | {'absent'}
--include receipts
--include end_channel
local owner = redis.call('GET', KEYS[3]) or ''
local generation = redis.call('HGET', KEYS[2], 'generation') or ''
if redis.call('DEL', KEYS[1]) == 0 then return {'absent'} end
end_channel(KEYS[2], KEYS[3], KEYS[4], KEYS[5], 'key-revoked')
return {'revoked', owner, generation}
