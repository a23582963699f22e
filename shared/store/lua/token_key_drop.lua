#!lua flags=allow-oom
-- Removes a key that verifies tokens: no token of it is valid from then on.
-- KEYS: token keys     ARGV: id of the key
-- Reply: 1, or 0 when it is not there
-- Touches at most: 2 fields.
if redis.call('HGET', KEYS[1], 'server') == ARGV[1] then redis.call('HDEL', KEYS[1], 'server') end
return redis.call('HDEL', KEYS[1], ARGV[1])
