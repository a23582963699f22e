#!lua flags=allow-oom
-- Lets a webhook that failed be tried now; how often and since when it failed stays known.
-- KEYS: channel
-- Returns 1, or 0 when there is no webhook
if redis.call('HGET', KEYS[1], 'kind') ~= 'webhook' then return 0 end
redis.call('HDEL', KEYS[1], 'next_try_ms')
return 1
