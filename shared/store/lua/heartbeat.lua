#!lua flags=allow-oom
-- Says that a instance is live, and when it was last seen.
-- KEYS: heartbeat, last-seen     ARGV: instance, TTL in ms, now in ms
-- Returns 1
redis.call('SET', KEYS[1], '1', 'PX', ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
return 1
