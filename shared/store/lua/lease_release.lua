#!lua flags=allow-oom
-- Releases a lease for its owner; the channel's idle time begins. A newer claim stays.
-- KEYS: channel, lease     ARGV: owner, now in ms
-- Reply: 1 when released, else 0
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'released_at_ms', ARGV[2]) end
return redis.call('DEL', KEYS[2])
