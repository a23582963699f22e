#!lua flags=allow-oom
-- Reads and deletes a session's queue for its owner: each notification is sent once, or never.
-- KEYS: session, queue     ARGV: owner
-- Reply: {'taken', entry...} | {'absent'}
-- Touches at most: 500 entries; a queue that an older release has filled with more keeps the rest.
local LOT = 500
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return {'absent'} end
local entries = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', LOT)
if #entries == LOT and redis.call('XLEN', KEYS[2]) > LOT then
  redis.call('XTRIM', KEYS[2], 'MAXLEN', redis.call('XLEN', KEYS[2]) - LOT)
elseif #entries > 0 then
  redis.call('UNLINK', KEYS[2])
end
return {'taken', unpack(entries)}
