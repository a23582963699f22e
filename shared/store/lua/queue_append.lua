#!lua
-- Puts notifications at the end of a channel's queue, in the order given, all or none.
-- Judges the key and the channel in the same step: nothing is queued after a revocation or a deletion.
-- Then drops from the front what is too old, and what is over the limit, oldest first; both are counted.
-- Wakeups whoever holds the channel, in the same step: a publisher that dies then leaves nobody waiting. What is
-- short travels in the wakeup itself, so that a holder which has sent its predecessor need not look.
-- No allow-oom: a full Redis refuses exactly this, and nothing else.
-- KEYS: key, channel, lease, queue, receipts
-- ARGV: limit in bytes, the first place that is not too old, traceparent or '',
--       then groups of six: id, topic, data, name, time, and for a receipt the hash of the id, else ''
-- Returns {'queued', dropped as over the limit, dropped as too old} | {'revoked'} | {'absent'}
--include receipts
-- More are not followed in one queue: a script that ends the channel tells all of them at once.
local MOST_RECEIPTS = 10000
-- More does not travel in a wakeup. Redis hangs up on a listener that has 32 MiB of them to read.
local INLINE_BYTES = 32768

if redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
local channel = redis.call('HMGET', KEYS[2], 'kind', 'next_attempt_ms', 'serialization', 'generation')
if not channel[1] then return {'absent'} end

-- What an entry is counted with: its text, and about what it costs beside.
local function size(topic, data, name, trail) return #topic + #data + #name + #trail + 220 end

local function add(i, total, trail)
  if trail == '' then
    return redis.call('XADD', KEYS[4], '*', 'id', ARGV[i], 'topic', ARGV[i + 1], 'data', ARGV[i + 2],
      'name', ARGV[i + 3], 'time', ARGV[i + 4], 'total', total)
  end
  return redis.call('XADD', KEYS[4], '*', 'id', ARGV[i], 'topic', ARGV[i + 1], 'data', ARGV[i + 2],
    'name', ARGV[i + 3], 'time', ARGV[i + 4], 'total', total, 'trail', trail)
end

local function open_receipt(place, hash)
  redis.call('XADD', KEYS[5], place, 'event', hash)
  local receipt = receipt_of(KEYS[5], hash)
  redis.call('DEL', receipt)
  redis.call('HSET', receipt, 'entry', place, 'queued', string.match(place, '^%d+'))
  redis.call('PEXPIRE', receipt, RECEIPT_TTL_MS)
end

-- What nobody will follow any more must not look as if it were still under way.
local function forget_receipts(count)
  for _, entry in ipairs(redis.call('XRANGE', KEYS[5], '-', '+', 'COUNT', count)) do
    local receipt = receipt_of(KEYS[5], entry[2][2])
    if redis.call('HGET', receipt, 'entry') == entry[1] then redis.call('DEL', receipt) end
    redis.call('XDEL', KEYS[5], entry[1])
  end
end

local function ms_of(place) return tonumber(string.match(place, '^%d+')) end

local function instance_of(owner) return string.match(owner, '^(.*)/') end

-- A wakeup that carries what was queued: the lengths of its parts, then the parts.
local function carried(parts, places)
  for n, place in ipairs(places) do
    local i = 6 * n - 2
    parts[#parts + 1] = place
    for k = i, i + 4 do parts[#parts + 1] = ARGV[k] end
    parts[#parts + 1] = ARGV[3]
  end
  local lengths = {}
  for n, part in ipairs(parts) do lengths[n] = #part end
  return '+' .. table.concat(lengths, ' ') .. '\n' .. table.concat(parts)
end

local total, asked = 0, false
local tail = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
if tail then total = tonumber(tail[2][12]) end
local before_all, places = total, {}
for i = 4, #ARGV, 6 do
  local hash = ARGV[i + 5]
  -- What is to be followed stands in the entry: a traceparent, an r before it or alone for a receipt.
  local trail = hash == '' and ARGV[3] or 'r' .. ARGV[3]
  total = total + size(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], trail)
  local place = add(i, string.format('%.0f', total), trail)
  places[#places + 1] = place
  if hash ~= '' then
    -- In a queue that was empty nothing was followed; what an older release left there must not be in the way.
    if not asked and not tail then redis.call('DEL', KEYS[5]) end
    open_receipt(place, hash)
    asked = true
  end
end
if asked then
  redis.call('PEXPIRE', KEYS[5], RECEIPT_TTL_MS)
  local many = redis.call('XLEN', KEYS[5]) - MOST_RECEIPTS
  if many > 0 then forget_receipts(many) end
end

-- In a queue that was empty there is nothing old, and nothing to give up but of these themselves.
local old, over, limit = 0, 0, tonumber(ARGV[1])
local head = (tail or total > limit) and redis.call('XRANGE', KEYS[4], '-', '+', 'COUNT', 1)[1]
if head and ms_of(head[1]) < ms_of(ARGV[2]) then
  old = redis.call('XTRIM', KEYS[4], 'MINID', ARGV[2])
  tell(KEYS[5], '-', '(' .. ARGV[2], 'dropped', 'too-old')
  head = redis.call('XRANGE', KEYS[4], '-', '+', 'COUNT', 1)[1]
end
if head then
  local values, from = head[2], '-'
  local before = tonumber(values[12]) - size(values[4], values[6], values[8], values[14] or '')
  while total - before > limit do
    local entries = redis.call('XRANGE', KEYS[4], from, '+', 'COUNT', 16)
    for _, entry in ipairs(entries) do
      if total - before <= limit then break end
      before = tonumber(entry[2][12])
      over = over + 1
      from = '(' .. entry[1]
    end
  end
  if over > 0 then
    redis.call('XTRIM', KEYS[4], 'MAXLEN', redis.call('XLEN', KEYS[4]) - over)
    tell(KEYS[5], '-', string.sub(from, 2), 'dropped', 'queue-full')
  end
end
if old + over > 0 then redis.call('HINCRBY', KEYS[2], 'dropped', old + over) end

local owner = redis.call('GET', KEYS[3])
local id = string.match(KEYS[4], '{(.*)}')
if channel[1] == 'webhook' then
  -- Without an owner it is every dispatcher's business, unless it failed and its next try is still to come.
  local rests = channel[2] and tonumber(channel[2]) > tonumber(redis.call('TIME')[1]) * 1000
  if owner or not rests then redis.call('PUBLISH', 'wakeup:' .. instance_of(owner or 'dispatchers/any'), id) end
elseif owner then
  local is_short = total - before_all <= INLINE_BYTES and over + old == 0 and not asked
  local wakeup = is_short and carried({ id, owner, channel[4], tail and tail[1] or '', channel[3] or '' }, places) or id
  redis.call('PUBLISH', 'wakeup:' .. instance_of(owner), wakeup)
end
return {'queued', over, old}
