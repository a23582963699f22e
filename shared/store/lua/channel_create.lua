#!lua
-- Makes a channel for an API key that has none. One that exists is left as it is, queue and socket too.
-- KEYS: key, channel     ARGV: kind, incarnation, now in ms
-- Returns {'created' or 'exists', kind, incarnation} | {'revoked'}
if redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
local found = redis.call('HMGET', KEYS[2], 'kind', 'incarnation')
if found[1] then return {'exists', found[1], found[2]} end
redis.call('HSET', KEYS[2], 'kind', ARGV[1], 'incarnation', ARGV[2], 'created_at_ms', ARGV[3])
return {'created', ARGV[1], ARGV[2]}
