#!lua flags=allow-oom
-- Pauses a channel, or ends the pause. While it is paused its lease cannot be claimed and its queue cannot be read, and
-- appends send no wakeup. Its owner keeps the lease until it notices: what is under way may still be acknowledged.
-- The end of a pause also enables a native webhook again that is disabled, and makes it due at once: what is known of its
-- failures says nothing any more. The failure of an attempt that is under way must not postpone the next one, so the
-- config version changes.
-- KEYS: channel     ARGV: '1' to pause, '' to end the pause, a new config version
-- Reply: {kind, owner or ''} | {} without a channel
-- Touches at most: 14 fields.
--include now
--include silence
local kind, owner, limits, policy, disabled, taken_until = unpack(redis.call('HMGET', KEYS[1], 'kind', 'owner', 'limits',
  'policy', 'disabled', 'taken_until'))
if not kind then return {} end
set_silent(KEYS[1], limits, ARGV[1] == '1')
if ARGV[1] == '1' then
  redis.call('HSET', KEYS[1], 'paused', 1)
else
  redis.call('HDEL', KEYS[1], 'paused', 'disabled', 'disabled_since_ms')
  if disabled then redis.call('HDEL', KEYS[1], 'failed_attempts', 'failing_since_ms', 'head') end
  if policy then
    redis.call('HDEL', KEYS[1], 'next_attempt_ms', 'hold_ms', 'asked_ms')
    if taken_until then redis.call('HSET', KEYS[1], 'hurry', 1) end
    if taken_until and disabled then redis.call('HSET', KEYS[1], 'anew_ms', now_ms()) end
    redis.call('HSET', KEYS[1], 'config_version', ARGV[2])
  end
end
return {kind, owner or ''}
