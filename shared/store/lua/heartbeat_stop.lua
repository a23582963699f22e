#!lua flags=allow-oom
-- Ends the heartbeat of an instance that has shut down. Keeps when it was seen last: a lease whose release failed counts
-- from then, and the reaper removes sessions that the instance could not.
-- KEYS: heartbeat, last-seen     ARGV: instance
-- Reply: 1
-- Touches at most: 2 names.
--include now
redis.call('DEL', KEYS[1])
redis.call('ZADD', KEYS[2], now_ms(), ARGV[1])
return 1
