#!lua flags=allow-oom
-- Marks an instance as live for another TTL, and records when.
-- KEYS: heartbeat, last-seen     ARGV: instance, TTL in ms
-- Reply: 1
-- Touches at most: 2 names.
--include now
redis.call('SET', KEYS[1], '1', 'PX', ARGV[2])
redis.call('ZADD', KEYS[2], now_ms(), ARGV[1])
return 1
