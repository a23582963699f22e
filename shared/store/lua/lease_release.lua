#!lua flags=allow-oom
-- Releases a lease for its owner; the channel's idle time begins. A newer claim stays.
-- Writes no due time: a visit of a channel with an owner plans the next one as if the lease was released then.
-- KEYS: channel     ARGV: owner
-- Reply: 1 when released, else 0
-- Touches at most: 4 fields.
--include now
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'released_at_ms', now_ms())
redis.call('HDEL', KEYS[1], 'owner', 'claimed_ms', 'contested_until_ms')
return 1
