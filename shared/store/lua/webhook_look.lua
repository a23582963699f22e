#!lua flags=no-writes,allow-oom
-- Whether a webhook channel is owed something that may be sent now.
-- KEYS: key, channel, lease, queue     ARGV: incarnation, now in ms
-- Returns {'due', owner or '', failed tries} | {'rests'} | {'gone'}
local channel = redis.call('HMGET', KEYS[2], 'incarnation', 'next_try_ms', 'tries')
if channel[1] ~= ARGV[1] then return {'gone'} end
if redis.call('XLEN', KEYS[4]) == 0 then return {'rests'} end
local expires = redis.call('HGET', KEYS[1], 'expires_at_ms')
if expires and tonumber(expires) <= tonumber(ARGV[2]) then return {'rests'} end
if channel[2] and tonumber(channel[2]) > tonumber(ARGV[2]) then return {'rests'} end
return {'due', redis.call('GET', KEYS[3]) or '', channel[3] or '0'}
