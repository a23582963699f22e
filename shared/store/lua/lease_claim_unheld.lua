#!lua flags=allow-oom
-- Claims a channel that has no live owner. The caller judged the owner it saw by its heartbeat, which lies in another
-- slot; an owner that has claimed since keeps the lease.
-- KEYS: key, channel, lease     ARGV: owner, kind, the owner that the caller found dead or ''
-- Reply: {'claimed', previous owner or '', generation} | {'held', owner} | {'revoked'} | {'absent'}
if redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
local channel = redis.call('HMGET', KEYS[2], 'kind', 'generation')
if channel[1] ~= ARGV[2] then return {'absent'} end
local owner = redis.call('GET', KEYS[3]) or ''
if owner ~= ARGV[3] then return {'held', owner} end
redis.call('SET', KEYS[3], ARGV[1])
return {'claimed', owner, channel[2]}
