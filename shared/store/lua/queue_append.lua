#!lua
-- Puts notifications at the end of a channel's queue, in the order given, all or none.
-- Judges the key and the channel in the same step: nothing is queued after a revocation or a deletion.
-- No allow-oom: a full Redis refuses exactly this, and nothing else.
-- KEYS: key, channel, lease, queue     ARGV: groups of five: id, topic, data, name, time
-- Returns {'queued', owner or ''} | {'revoked'} | {'absent'}
if redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
if redis.call('EXISTS', KEYS[2]) == 0 then return {'absent'} end
local total = 0
local tail = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
if tail then total = tonumber(tail[2][12]) end
for i = 1, #ARGV, 5 do
  -- Each entry is counted with about what it costs beside its data.
  total = total + #ARGV[i + 1] + #ARGV[i + 2] + #ARGV[i + 3] + 220
  redis.call('XADD', KEYS[4], '*', 'id', ARGV[i], 'topic', ARGV[i + 1], 'data', ARGV[i + 2],
    'name', ARGV[i + 3], 'time', ARGV[i + 4], 'total', string.format('%.0f', total))
end
return {'queued', redis.call('GET', KEYS[3]) or ''}
