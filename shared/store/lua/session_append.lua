#!lua
-- Appends notifications to a session's queue and wakes the edge that holds its socket.
-- Drops the newest that exceed the limit: sessions promise no delivery.
-- Touches at most: the events of one request (10,000).
-- KEYS: session, queue     ARGV: limit, account, then groups of five: id, topic, data, name, time
-- Reply: {'queued', the number queued} | {'absent'}
local owner = redis.call('HGET', KEYS[1], 'owner')
if not owner then return {'absent'} end
local free = tonumber(ARGV[1]) - redis.call('XLEN', KEYS[2])
local queued = 0
for i = 3, #ARGV, 5 do
  if queued >= free then break end
  redis.call('XADD', KEYS[2], '*', 'id', ARGV[i], 'topic', ARGV[i + 1], 'data', ARGV[i + 2], 'name', ARGV[i + 3],
    'time', ARGV[i + 4], 'account', ARGV[2])
  queued = queued + 1
end
redis.call('PUBLISH', 'wakeup:' .. string.match(owner, '^(.*)/'), string.match(KEYS[1], '{(.*)}'))
return {'queued', queued}
