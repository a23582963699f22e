#!lua flags=allow-oom
-- Makes a socket the owner of its channel: the newest socket takes the lease over.
-- KEYS: key, channel, lease     ARGV: owner, kind
-- Reply: {'claimed', previous owner or '', generation, frame limit or '', refused until or ''}
--      | {'revoked'} | {'absent'}
if redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
local channel = redis.call('HMGET', KEYS[2], 'kind', 'generation', 'frame_limit_bytes', 'refused_until')
if channel[1] ~= ARGV[2] then return {'absent'} end
local previous = redis.call('GET', KEYS[3]) or ''
redis.call('SET', KEYS[3], ARGV[1])
return {'claimed', previous, channel[2], channel[3] or '', channel[4] or ''}
