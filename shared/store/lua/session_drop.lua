#!lua flags=allow-oom
-- Forgets a session, if it is still this owner's.
-- KEYS: session, queue, pushes     ARGV: owner
-- Returns 1 when it went, else 0
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
return math.min(1, redis.call('DEL', KEYS[1], KEYS[2], KEYS[3]))
