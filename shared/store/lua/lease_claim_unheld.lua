#!lua flags=allow-oom
-- Makes somebody the owner of a channel that nobody live holds. The caller has judged the owner it saw, whose
-- heartbeat lies in another slot: whoever has claimed since keeps it.
-- KEYS: key, channel, lease     ARGV: owner, kind, the owner that was seen or ''
-- Returns {'claimed', previous or '', generation} | {'held', owner} | {'revoked'} | {'absent'}
if redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
local channel = redis.call('HMGET', KEYS[2], 'kind', 'generation')
if channel[1] ~= ARGV[2] then return {'absent'} end
local owner = redis.call('GET', KEYS[3]) or ''
if owner ~= ARGV[3] then return {'held', owner} end
redis.call('SET', KEYS[3], ARGV[1])
return {'claimed', owner, channel[2]}
