#!lua flags=allow-oom
-- Reads and deletes a session's queue for its owner: each notification is sent once, or never.
-- Touches at most: the entries of one queue (1,000).
-- KEYS: session, queue     ARGV: owner
-- Reply: {'taken', entry...} | {'absent'}
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return {'absent'} end
local entries = redis.call('XRANGE', KEYS[2], '-', '+')
if #entries > 0 then redis.call('DEL', KEYS[2]) end
return {'taken', unpack(entries)}
