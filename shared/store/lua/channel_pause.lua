#!lua flags=allow-oom
-- Pauses a channel, or ends the pause. While it is paused nobody may claim its lease or read its queue, and appends wake
-- nobody. Its owner keeps the lease until it notices: what is under way may still be acknowledged.
-- KEYS: channel     ARGV: '1' to pause, '' to end the pause
-- Reply: {kind, owner or ''} | {} without a channel
-- Touches at most: 3 fields.
local kind, owner = unpack(redis.call('HMGET', KEYS[1], 'kind', 'owner'))
if not kind then return {} end
if ARGV[1] == '1' then redis.call('HSET', KEYS[1], 'paused', 1) else redis.call('HDEL', KEYS[1], 'paused') end
return {kind, owner or ''}
