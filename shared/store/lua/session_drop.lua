#!lua flags=allow-oom
-- Deletes a session for its owner.
-- Touches at most: 3 keys.
-- KEYS: session, queue, pushes     ARGV: owner
-- Reply: 1 when deleted, else 0
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
return math.min(1, redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3]))
