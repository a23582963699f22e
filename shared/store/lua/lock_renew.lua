#!lua flags=allow-oom
-- Goes on with work that one process does at a time, if its lock has not ended: another process may have begun since, and
-- have done it.
-- KEYS: lock     ARGV: what the lock contains, its TTL in ms
-- Reply: 1, or 0 when the lock is gone or another process's
-- Touches at most: 1 key.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
