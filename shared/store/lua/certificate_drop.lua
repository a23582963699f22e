#!lua flags=allow-oom
-- Removes the client certificate of a webhook. The next attempt, due at once if the webhook fails, has none of its own.
-- KEYS: channel     ARGV: a new config version
-- Reply: 1, or 0 when there is none
-- Touches at most: 6 fields.
if redis.call('HDEL', KEYS[1], 'client_certificate', 'client_chain', 'client_key', 'client_facts') == 0 then return 0 end
redis.call('HSET', KEYS[1], 'config_version', ARGV[1])
redis.call('HDEL', KEYS[1], 'next_attempt_ms')
return 1
