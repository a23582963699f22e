#!lua
-- Puts notifications at the end of a channel's queue, in the order given, all or none.
-- Judges the key and the channel in the same step: nothing is queued after a revocation or a deletion.
-- Then drops from the front what is too old, and what is over the limit, oldest first; both are counted.
-- No allow-oom: a full Redis refuses exactly this, and nothing else.
-- KEYS: key, channel, lease, queue
-- ARGV: limit in bytes, the first place that is not too old, then groups of five: id, topic, data, name, time
-- Returns {'queued', whom to nudge or '', dropped as over the limit, dropped as too old} | {'revoked'} | {'absent'}
if redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
local channel = redis.call('HMGET', KEYS[2], 'kind', 'next_try_ms')
if not channel[1] then return {'absent'} end

-- What an entry is counted with: its text, and about what it costs beside.
local function size(topic, data, name) return #topic + #data + #name + 220 end

local total = 0
local tail = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
if tail then total = tonumber(tail[2][12]) end
for i = 3, #ARGV, 5 do
  total = total + size(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3])
  redis.call('XADD', KEYS[4], '*', 'id', ARGV[i], 'topic', ARGV[i + 1], 'data', ARGV[i + 2],
    'name', ARGV[i + 3], 'time', ARGV[i + 4], 'total', string.format('%.0f', total))
end

local old = redis.call('XTRIM', KEYS[4], 'MINID', ARGV[2])
local over = 0
local from, limit = '-', tonumber(ARGV[1])
local head = redis.call('XRANGE', KEYS[4], '-', '+', 'COUNT', 1)[1]
if head then
  local values = head[2]
  local before = tonumber(values[12]) - size(values[4], values[6], values[8])
  while total - before > limit do
    local entries = redis.call('XRANGE', KEYS[4], from, '+', 'COUNT', 16)
    for _, entry in ipairs(entries) do
      if total - before <= limit then break end
      before = tonumber(entry[2][12])
      over = over + 1
      from = '(' .. entry[1]
    end
  end
  if over > 0 then redis.call('XTRIM', KEYS[4], 'MAXLEN', redis.call('XLEN', KEYS[4]) - over) end
end
if old + over > 0 then redis.call('HINCRBY', KEYS[2], 'dropped', old + over) end

-- A webhook without an owner is every dispatcher's business, unless it failed and waits for its next try.
local nudged = redis.call('GET', KEYS[3]) or ''
if nudged == '' and channel[1] == 'webhook' and not channel[2] then nudged = 'dispatchers/any' end
return {'queued', nudged, over, old}
