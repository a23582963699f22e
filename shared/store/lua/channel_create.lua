#!lua
-- Creates a channel for an API key that has none. An existing channel of the same kind keeps its queue and its owner;
-- the given fields replace its own, and a failing webhook is due at once, with batches of any size.
-- Without a generation it creates nothing: the caller makes a new channel due before it exists.
-- KEYS: key, channel     ARGV: kind, generation or '', then pairs: field, value
-- Reply: {'created' or 'exists', kind, generation, owner or ''} | {'absent'} | {'revoked'}
-- Touches at most: the fields given, and 13 more.
--include now
if redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
local channel = redis.call('HMGET', KEYS[2], 'kind', 'generation', 'owner')
local status = 'exists'
if not channel[1] then
  if ARGV[2] == '' then return {'absent'} end
  status, channel = 'created', {ARGV[1], ARGV[2]}
  redis.call('HSET', KEYS[2], 'kind', ARGV[1], 'generation', ARGV[2], 'created_at_ms', now_ms())
end
if channel[1] == ARGV[1] and #ARGV > 2 then
  redis.call('HSET', KEYS[2], unpack(ARGV, 3))
  redis.call('HDEL', KEYS[2], 'failed_attempts', 'failing_since_ms', 'next_attempt_ms')
  -- What one receiver refused says nothing about the next one. A socket keeps what its client refused.
  if ARGV[1] == 'webhook' then
    redis.call('HDEL', KEYS[2], 'body_limit_bytes', 'body_limit_until_ms', 'batch_limit', 'grows_from_ms', 'timed_out',
      'refused_entry', 'refused_times')
  end
end
return {status, channel[1], channel[2], channel[3] or ''}
