#!lua flags=allow-oom
-- Removes an instance that has shut down.
-- KEYS: heartbeat, last-seen     ARGV: instance
-- Reply: 1
-- Touches at most: 2 names.
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
