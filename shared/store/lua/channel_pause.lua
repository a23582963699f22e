#!lua flags=allow-oom
-- Pauses a channel, or ends the pause. While it is paused its lease cannot be claimed and its queue cannot be read, and
-- appends send no wakeup. Its owner keeps the lease until it notices: what is under way may still be acknowledged.
-- An append reads one field beside the usual ones: so the pause is also noted behind the limits of the queue.
-- KEYS: channel     ARGV: '1' to pause, '' to end the pause
-- Reply: {kind, owner or ''} | {} without a channel
-- Touches at most: 4 fields.
local kind, owner, limits = unpack(redis.call('HMGET', KEYS[1], 'kind', 'owner', 'limits'))
if not kind then return {} end
limits = string.gsub(limits or ' ', 'p$', '')
if ARGV[1] == '1' then
  redis.call('HSET', KEYS[1], 'paused', 1, 'limits', limits .. 'p')
else
  redis.call('HDEL', KEYS[1], 'paused')
  if limits == ' ' then redis.call('HDEL', KEYS[1], 'limits') else redis.call('HSET', KEYS[1], 'limits', limits) end
end
return {kind, owner or ''}
