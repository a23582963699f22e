#!lua flags=allow-oom
-- Releases a lease for its owner; the channel's idle time begins. A newer claim stays.
-- KEYS: channel     ARGV: owner, now in ms
-- Reply: 1 when released, else 0
-- Touches at most: 3 fields.
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'released_at_ms', ARGV[2])
redis.call('HDEL', KEYS[1], 'contested_until_ms')
return redis.call('HDEL', KEYS[1], 'owner')
