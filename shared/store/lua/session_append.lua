#!lua
-- Appends notifications to a session's queue and wakes the edge that holds its socket.
-- Drops the newest that exceed a limit: sessions promise no delivery. The session's hash counts the bytes in its queue.
-- KEYS: session, queue
-- ARGV: limit of entries, limit in bytes, account, deadline in ms or '' for none,
--       then groups of five: id, topic, data, name, time
-- Reply: {'queued', the number queued} | {'absent'} | {'late'}
-- Touches at most: the entries of one queue (500; sessions.py), and 2 fields.
--include entry_size
if ARGV[4] ~= '' then
--include late
  if is_late(ARGV[4]) then return {'late'} end
end
local owner, queued_bytes = unpack(redis.call('HMGET', KEYS[1], 'owner', 'queued_bytes'))
if not owner then return {'absent'} end
local length = redis.call('XLEN', KEYS[2])
local bytes, queued = length > 0 and tonumber(queued_bytes or 0) or 0, 0
for i = 5, #ARGV, 5 do
  bytes = bytes + size_of(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i]) + #ARGV[i + 4]
  if length + queued >= tonumber(ARGV[1]) or bytes > tonumber(ARGV[2]) then break end
  redis.call('XADD', KEYS[2], '*', 'id', ARGV[i], 'topic', ARGV[i + 1], 'data', ARGV[i + 2], 'name', ARGV[i + 3],
    'time', ARGV[i + 4], 'account', ARGV[3])
  queued, queued_bytes = queued + 1, bytes
end
if queued > 0 then redis.call('HSET', KEYS[1], 'queued_bytes', queued_bytes) end
redis.call('PUBLISH', 'wakeup:' .. string.match(owner, '^(.*)/'), string.match(KEYS[1], '{(.*)}'))
return {'queued', queued}
