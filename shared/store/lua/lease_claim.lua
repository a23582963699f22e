#!lua flags=allow-oom
-- Makes ARGV[1] the owner of a channel of one kind. Without ARGV[3] it takes the lease over from any other owner.
-- With it, only from that one: the caller judged it by its heartbeat, which lies in another slot, and an owner that
-- has claimed since keeps the lease.
-- KEYS: key, channel, lease     ARGV: owner, kind, optionally the owner that the caller found dead or ''
-- Reply: {'claimed', previous owner or '', generation, frame limit or '', refused until or ''} | {'held', owner}
--      | {'revoked'} | {'absent'}
if redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
local channel = redis.call('HMGET', KEYS[2], 'kind', 'generation', 'frame_limit_bytes', 'refused_until')
if channel[1] ~= ARGV[2] then return {'absent'} end
local previous = redis.call('GET', KEYS[3]) or ''
if ARGV[3] and previous ~= ARGV[3] then return {'held', previous} end
redis.call('SET', KEYS[3], ARGV[1])
return {'claimed', previous, channel[2], channel[3] or '', channel[4] or ''}
