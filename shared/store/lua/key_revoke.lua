#!lua flags=allow-oom
-- Ends an API key with its channel, queue and lease. From here on nothing can be claimed or queued for it.
-- KEYS: key, channel, lease, queue, receipts
-- Returns {'revoked', owner or '', generation of its channel or ''} | {'absent'}
--include receipts
local owner = redis.call('GET', KEYS[3]) or ''
local generation = redis.call('HGET', KEYS[2], 'generation') or ''
if redis.call('DEL', KEYS[1]) == 0 then return {'absent'} end
tell(KEYS[5], '-', '+', 'dropped', 'key-revoked')
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
return {'revoked', owner, generation}
