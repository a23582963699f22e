#!lua
-- Hands data to a session's edge, to be written to the socket unchanged.
-- Touches at most: 2 keys.
-- KEYS: session, pushes     ARGV: push (its id, a blank, the data), TTL in ms, limit
-- Reply: {'put', owner} | {'full'} | {'absent'}
local owner = redis.call('HGET', KEYS[1], 'owner')
if not owner then return {'absent'} end
if redis.call('LLEN', KEYS[2]) >= tonumber(ARGV[3]) then return {'full'} end
redis.call('RPUSH', KEYS[2], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return {'put', owner}
