#!lua
-- Makes a channel for an API key that has none. One that exists keeps its queue and its owner; what is given
-- replaces what it had, and if it is a webhook that failed, it is tried again at once.
-- KEYS: key, channel, lease     ARGV: kind, generation, now in ms, then pairs: field, value
-- Returns {'created' or 'exists', kind, generation, owner or ''} | {'revoked'}
if redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
local found = redis.call('HMGET', KEYS[2], 'kind', 'generation')
local word = 'exists'
if not found[1] then
  word, found = 'created', {ARGV[1], ARGV[2]}
  redis.call('HSET', KEYS[2], 'kind', ARGV[1], 'generation', ARGV[2], 'created_at_ms', ARGV[3])
end
if found[1] == ARGV[1] and #ARGV > 3 then
  redis.call('HSET', KEYS[2], unpack(ARGV, 4))
  redis.call('HDEL', KEYS[2], 'failed_attempts', 'failing_since_ms', 'next_attempt_ms')
end
return {word, found[1], found[2], redis.call('GET', KEYS[3]) or ''}
