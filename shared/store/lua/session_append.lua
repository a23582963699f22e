#!lua
-- Puts notifications into a session's queue, in the order given. What does not fit any more is dropped: the
-- newest go, since nobody promised them. The edge that holds its socket is woken.
-- KEYS: session, queue     ARGV: most, account, then groups of five: id, topic, data, name, time
-- Returns {'queued', how many of them fitted} | {'absent'}
local owner = redis.call('HGET', KEYS[1], 'owner')
if not owner then return {'absent'} end
local room = tonumber(ARGV[1]) - redis.call('XLEN', KEYS[2])
local fitted = 0
for i = 3, #ARGV, 5 do
  if fitted >= room then break end
  redis.call('XADD', KEYS[2], '*', 'id', ARGV[i], 'topic', ARGV[i + 1], 'data', ARGV[i + 2], 'name', ARGV[i + 3],
    'time', ARGV[i + 4], 'account', ARGV[2])
  fitted = fitted + 1
end
redis.call('PUBLISH', 'wakeup:' .. string.match(owner, '^(.*)/'), string.match(KEYS[1], '{(.*)}'))
return {'queued', fitted}
