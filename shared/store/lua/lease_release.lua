#!lua flags=allow-oom
-- Gives a lease back, if it is still the owner's: a newer claim stays.
-- KEYS: lease     ARGV: owner
-- Returns 1 when it was given back, else 0
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
