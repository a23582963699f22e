#!lua flags=allow-oom
-- Lets a webhook that failed be tried now; how often and since when it failed stays known. A try that is under way
-- began before the wish: its failure must not put the next one off, so the setup becomes a new one.
-- KEYS: channel     ARGV: a new setup
-- Returns 1, or 0 when there is no webhook
if redis.call('HGET', KEYS[1], 'kind') ~= 'webhook' then return 0 end
redis.call('HDEL', KEYS[1], 'next_attempt_ms')
redis.call('HSET', KEYS[1], 'setup', ARGV[1])
return 1
