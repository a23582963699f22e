#!lua flags=allow-oom
-- Goes on with the recount of an account, if its lock has not ended: another process may have counted since, and
-- replaced the sums that this recount began with.
-- KEYS: lock     ARGV: token, TTL of the lock in ms
-- Reply: 1, or 0 when the lock is gone or another process's
-- Touches at most: 1 key.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
