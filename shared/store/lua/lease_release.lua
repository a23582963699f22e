#!lua flags=allow-oom
-- Gives a lease back, if it is still the owner's: a newer claim stays. From here the channel's idle time counts.
-- KEYS: channel, lease     ARGV: owner, now in ms
-- Returns 1 when it was given back, else 0
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'released_at_ms', ARGV[2]) end
return redis.call('DEL', KEYS[2])
