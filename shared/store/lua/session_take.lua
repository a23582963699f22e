#!lua flags=allow-oom
-- All that waits for a session, taken out: it is sent once, or never.
-- KEYS: session, queue     ARGV: owner
-- Returns {'taken', entry...} | {'gone'}
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return {'gone'} end
local entries = redis.call('XRANGE', KEYS[2], '-', '+')
if #entries > 0 then redis.call('DEL', KEYS[2]) end
return {'taken', unpack(entries)}
