#!lua flags=allow-oom
-- Says that a instance is over, in good order.
-- KEYS: heartbeat, last-seen     ARGV: instance
-- Returns 1
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
