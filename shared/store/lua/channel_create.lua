#!lua
-- Makes a channel for an API key that has none. One that exists keeps its queue and its socket; how its
-- notifications are to be encoded changes if that is given.
-- KEYS: key, channel, lease     ARGV: kind, incarnation, now in ms, serialization or ''
-- Returns {'created' or 'exists', kind, incarnation, owner or ''} | {'revoked'}
if redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
local found = redis.call('HMGET', KEYS[2], 'kind', 'incarnation')
local word = 'exists'
if not found[1] then
  word, found = 'created', {ARGV[1], ARGV[2]}
  redis.call('HSET', KEYS[2], 'kind', ARGV[1], 'incarnation', ARGV[2], 'created_at_ms', ARGV[3])
end
if found[1] == ARGV[1] and ARGV[4] ~= '' then redis.call('HSET', KEYS[2], 'serialization', ARGV[4]) end
return {word, found[1], found[2], redis.call('GET', KEYS[3]) or ''}
