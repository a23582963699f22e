#!lua flags=allow-oom
-- Ends the heartbeat of an instance that has shut down. Keeps when it was seen last: a lease whose release failed counts
-- from then, and the reaper removes sessions that the instance could not.
-- KEYS: heartbeat, last-seen, stopped     ARGV: instance
-- Reply: 1
-- Touches at most: 3 names.
--include now
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[3], now_ms(), ARGV[1])
return 1
