#!lua
-- Puts data before a session's edge, to be sent as it is.
-- KEYS: session, pushes     ARGV: push (its id, a blank, the data), TTL in ms, most
-- Returns {'put', owner} | {'full'} | {'gone'}
local owner = redis.call('HGET', KEYS[1], 'owner')
if not owner then return {'gone'} end
if redis.call('LLEN', KEYS[2]) >= tonumber(ARGV[3]) then return {'full'} end
redis.call('RPUSH', KEYS[2], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return {'put', owner}
