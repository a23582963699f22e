#!lua flags=no-writes,allow-oom
-- Whether a webhook channel is pending something that may be sent now, and since when it might have been: it was
-- queued, what failed was to be tried again, and what came before it was acked.
-- KEYS: key, channel, lease, queue     ARGV: generation, now in ms
-- Returns {'due', owner or '', failed tries, since then in ms} | {'rests'} | {'gone'}
local channel = redis.call('HMGET', KEYS[2], 'generation', 'next_attempt_ms', 'failed_attempts', 'acked_ms')
if channel[1] ~= ARGV[1] then return {'gone'} end
local head = redis.call('XRANGE', KEYS[4], '-', '+', 'COUNT', 1)[1]
if not head then return {'rests'} end
local expires = redis.call('HGET', KEYS[1], 'expires_at_ms')
if expires and tonumber(expires) <= tonumber(ARGV[2]) then return {'rests'} end
if channel[2] and tonumber(channel[2]) > tonumber(ARGV[2]) then return {'rests'} end
local queued = tonumber(string.match(head[1], '^%d+'))
local since = math.max(queued, tonumber(channel[2] or 0), tonumber(channel[4] or 0))
return {'due', redis.call('GET', KEYS[3]) or '', channel[3] or '0', string.format('%.0f', since)}
