#!lua flags=allow-oom
-- Ends an API key with its channel, queue and lease. From here on nothing can be claimed or queued for it.
-- KEYS: key, channel, lease, queue
-- Returns {'revoked', owner or '', incarnation of its channel or ''} | {'absent'}
local owner = redis.call('GET', KEYS[3]) or ''
local incarnation = redis.call('HGET', KEYS[2], 'incarnation') or ''
if redis.call('DEL', KEYS[1]) == 0 then return {'absent'} end
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
return {'revoked', owner, incarnation}
