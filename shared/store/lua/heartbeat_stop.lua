#!lua flags=allow-oom
-- Says that a boot is over, in good order.
-- KEYS: heartbeat, last-seen     ARGV: boot
-- Returns 1
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
