#!lua
-- Appends notifications to a channel's queue, in the order given, all or none, and wakes the owner.
-- Checks the key and the channel in the same step: nothing is queued after a revocation or a deletion. Publishes the
-- wakeup in the same step: a publisher that dies afterwards leaves no receiver waiting. A short append travels inside
-- the wakeup, so that an owner that has sent the entry before it need not read.
-- Drops and counts what is too old, and then the oldest above the limit.
-- No allow-oom: a full Redis refuses appends, and nothing else.
-- KEYS: key, channel, lease, queue, receipts
-- ARGV: limit in bytes, the first entry id that is not too old, traceparent or '',
--       then groups of six: id, topic, data, name, time, and the hash of the id if it wants a receipt, else ''
-- Reply: {'queued', dropped above the limit, dropped as too old} | {'revoked'} | {'absent'}
--include receipts
--include drop_expired
--include entries
-- A script that ends the channel marks all of its receipts at once.
local MOST_RECEIPTS = 10000
-- Redis disconnects a subscriber with 32 MiB of unread wakeups.
local INLINE_BYTES = 32768

if redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
local channel = redis.call('HMGET', KEYS[2], 'kind', 'next_attempt_ms', 'serialization', 'generation')
if not channel[1] then return {'absent'} end

-- The bytes that an entry counts for: its text, and about what Redis spends on it.
local function size(topic, data, name, trail) return #topic + #data + #name + #trail + 220 end

local function add(i, total, trail)
  if trail == '' then
    return redis.call('XADD', KEYS[4], '*', 'id', ARGV[i], 'topic', ARGV[i + 1], 'data', ARGV[i + 2],
      'name', ARGV[i + 3], 'time', ARGV[i + 4], 'total', total)
  end
  return redis.call('XADD', KEYS[4], '*', 'id', ARGV[i], 'topic', ARGV[i + 1], 'data', ARGV[i + 2],
    'name', ARGV[i + 3], 'time', ARGV[i + 4], 'total', total, 'trail', trail)
end

local function open_receipt(entry_id, hash)
  redis.call('XADD', KEYS[5], entry_id, 'event', hash)
  local receipt = receipt_of(KEYS[5], hash)
  redis.call('DEL', receipt)
  redis.call('HSET', receipt, 'entry', entry_id, 'queued', string.match(entry_id, '^%d+'))
  redis.call('PEXPIRE', receipt, RECEIPT_TTL_MS)
end

-- Deletes the oldest receipts: without tracking they would stay 'queued' for ever.
local function forget_receipts(count)
  for _, entry in ipairs(redis.call('XRANGE', KEYS[5], '-', '+', 'COUNT', count)) do
    local receipt = receipt_of(KEYS[5], entry[2][2])
    if redis.call('HGET', receipt, 'entry') == entry[1] then redis.call('DEL', receipt) end
    redis.call('XDEL', KEYS[5], entry[1])
  end
end

local function instance_of(owner) return string.match(owner, '^(.*)/') end

-- A wakeup with inline entries: the lengths of its parts, then the parts. inline_entries.py parses it.
local function inline_entries(parts, entry_ids)
  for n, entry_id in ipairs(entry_ids) do
    local i = 6 * n - 2
    parts[#parts + 1] = entry_id
    for k = i, i + 4 do parts[#parts + 1] = ARGV[k] end
    parts[#parts + 1] = ARGV[3]
  end
  local lengths = {}
  for n, part in ipairs(parts) do lengths[n] = #part end
  return '+' .. table.concat(lengths, ' ') .. '\n' .. table.concat(parts)
end

local total, wants_receipts, entry_ids = 0, false, {}
local tail = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
if tail then total = tonumber(tail[2][12]) end
local total_before = total
for i = 4, #ARGV, 6 do
  local hash = ARGV[i + 5]
  -- The trail: the traceparent, behind an r if the publisher wants a receipt.
  local trail = hash == '' and ARGV[3] or 'r' .. ARGV[3]
  total = total + size(ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], trail)
  local entry_id = add(i, string.format('%.0f', total), trail)
  entry_ids[#entry_ids + 1] = entry_id
  if hash ~= '' then
    -- An empty queue tracks no receipts: delete leftovers, whose ids may be in the way.
    if not wants_receipts and not tail then redis.call('DEL', KEYS[5]) end
    open_receipt(entry_id, hash)
    wants_receipts = true
  end
end
if wants_receipts then
  redis.call('PEXPIRE', KEYS[5], RECEIPT_TTL_MS)
  local excess = redis.call('XLEN', KEYS[5]) - MOST_RECEIPTS
  if excess > 0 then forget_receipts(excess) end
end

-- A queue that was empty holds nothing old, and is above the limit only through these entries.
local old, over, limit = 0, 0, tonumber(ARGV[1])
local head = (tail or total > limit) and first_entry(KEYS[4])
if head and ms_of(head[1]) < ms_of(ARGV[2]) then
  old = drop_expired(KEYS[2], KEYS[4], KEYS[5], ARGV[2])
  head = first_entry(KEYS[4])
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
    redis.call('HINCRBY', KEYS[2], 'dropped', over)
    mark_receipts(KEYS[5], '-', string.sub(from, 2), 'dropped', 'queue-full')
  end
end

local owner = redis.call('GET', KEYS[3])
local id = string.match(KEYS[4], '{(.*)}')
if channel[1] == 'webhook' then
  -- Without an owner any dispatcher may deliver, unless the next attempt is still to come.
  local backs_off = channel[2] and tonumber(channel[2]) > tonumber(redis.call('TIME')[1]) * 1000
  if owner or not backs_off then redis.call('PUBLISH', 'wakeup:' .. instance_of(owner or 'dispatchers/any'), id) end
elseif owner then
  local wakeup = id
  if total - total_before <= INLINE_BYTES and over + old == 0 and not wants_receipts then
    wakeup = inline_entries({ id, owner, channel[4], tail and tail[1] or '', channel[3] or '' }, entry_ids)
  end
  redis.call('PUBLISH', 'wakeup:' .. instance_of(owner), wakeup)
end
return {'queued', over, old}
