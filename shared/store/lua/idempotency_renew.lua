#!lua flags=allow-oom
-- Moves the end of a running request's mark, if it is still this runner's: no other has had the request since it began.
-- A mark that has ended is not set again: another runner may have begun in between, and failed half way.
-- KEYS: running     ARGV: runner, fingerprint, TTL of the mark in ms
-- Reply: end of the mark in ms, or 0 when it is not the runner's
-- Touches at most: 1 key.
--include now
if redis.call('GET', KEYS[1]) ~= ARGV[2] .. ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return now_ms() + ARGV[3]
