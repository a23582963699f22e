#!lua
-- Appends notifications to a channel's queue, in the order given, all or none, and wakes the owner.
-- Checks the key and the channel in the same step: nothing is queued after a revocation or a deletion. Publishes the
-- wakeup in the same step: a publisher that dies afterwards leaves no receiver waiting. A short append travels inside
-- the wakeup, so that an owner that has sent the entry before it need not read.
-- Drops and counts what is too old, and then the oldest above the limit.
-- No allow-oom: a full Redis refuses appends, and nothing else.
-- KEYS: key, channel, lease, queue, receipts
-- ARGV: limit in bytes, the first entry id that is not too old, traceparent or '', version of the bindings or '',
--       then groups of six: id, topic, data, name, time, and the hash of the id if it wants a receipt, else ''
-- Reply: {'queued', dropped above the limit, dropped as too old} | {'revoked'} | {'absent'}
--      | {'stale', version of the channel's bindings}
--include receipts
--include drop_expired
--include entries
-- A script that ends the channel marks all of its receipts at once.
local MOST_RECEIPTS = 10000
local RECEIPT_TTL_MS = 60 * 60 * 1000
-- Redis disconnects a subscriber with 32 MiB of unread wakeups.
local INLINE_BYTES = 32768
-- About what Redis spends on an entry besides its text.
local ENTRY_BYTES = 220

if redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
local channel = redis.call('HMGET', KEYS[2], 'kind', 'next_attempt_ms', 'serialization', 'generation', 'bindings_version')
if not channel[1] then return {'absent'} end
-- A gateway that knows other bindings must read them first: the answered removal of one counts at once.
local bindings_version = channel[5] or channel[4]
if ARGV[4] ~= '' and ARGV[4] ~= bindings_version then return {'stale', bindings_version} end

local tail = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
local total_before = tail and tonumber(tail[2][12]) or 0
local total, entry_ids, wants_receipts = total_before, {}, false
for i = 5, #ARGV, 6 do
  -- The trail: the traceparent, behind an r if the publisher wants a receipt.
  local id, topic, data, name, time, trail = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[3]
  if ARGV[i + 5] ~= '' then trail, wants_receipts = 'r' .. trail, true end
  total = total + #topic + #data + #name + #trail + ENTRY_BYTES
  if trail == '' then
    entry_ids[#entry_ids + 1] = redis.call('XADD', KEYS[4], '*', 'id', id, 'topic', topic, 'data', data,
      'name', name, 'time', time, 'total', total)
  else
    entry_ids[#entry_ids + 1] = redis.call('XADD', KEYS[4], '*', 'id', id, 'topic', topic, 'data', data,
      'name', name, 'time', time, 'total', total, 'trail', trail)
  end
end

if wants_receipts then
  -- An empty queue tracks no receipts: delete leftovers, whose ids may be in the way.
  if not tail then redis.call('DEL', KEYS[5]) end
  local prefix = string.sub(KEYS[5], 1, -2) .. ':'
  for n, entry_id in ipairs(entry_ids) do
    local hash = ARGV[6 * n + 4]
    if hash ~= '' then
      redis.call('XADD', KEYS[5], entry_id, 'event', hash)
      redis.call('DEL', prefix .. hash)
      redis.call('HSET', prefix .. hash, 'entry', entry_id, 'queued', string.match(entry_id, '^%d+'))
      redis.call('PEXPIRE', prefix .. hash, RECEIPT_TTL_MS)
    end
  end
  redis.call('PEXPIRE', KEYS[5], RECEIPT_TTL_MS)
  -- Delete the oldest above the limit: without tracking they would stay 'queued' for ever.
  local excess = redis.call('XLEN', KEYS[5]) - MOST_RECEIPTS
  for _, entry in ipairs(excess > 0 and redis.call('XRANGE', KEYS[5], '-', '+', 'COUNT', excess) or {}) do
    local receipt = prefix .. entry[2][2]
    if redis.call('HGET', receipt, 'entry') == entry[1] then redis.call('DEL', receipt) end
    redis.call('XDEL', KEYS[5], entry[1])
  end
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
  local before = tonumber(values[12]) - #values[4] - #values[6] - #values[8] - #(values[14] or '') - ENTRY_BYTES
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
local wakeup = string.match(KEYS[4], '{(.*)}')
if channel[1] == 'webhook' then
  -- Without an owner any dispatcher may deliver, unless the next attempt is still to come.
  local backs_off = channel[2] and tonumber(channel[2]) > tonumber(redis.call('TIME')[1]) * 1000
  owner = owner or not backs_off and 'dispatchers/any'
elseif owner and total - total_before <= INLINE_BYTES and over + old == 0 and not wants_receipts then
  -- A wakeup with inline entries: the lengths of its parts, then the parts. inline_entries.py parses it.
  local parts, lengths = { wakeup, owner, channel[4], tail and tail[1] or '', channel[3] or '' }, {}
  for n, entry_id in ipairs(entry_ids) do
    parts[#parts + 1] = entry_id
    for k = 6 * n - 1, 6 * n + 3 do parts[#parts + 1] = ARGV[k] end
    parts[#parts + 1] = ARGV[3]
  end
  for n, part in ipairs(parts) do lengths[n] = #part end
  wakeup = '+' .. table.concat(lengths, ' ') .. '\n' .. table.concat(parts)
end
if owner then redis.call('PUBLISH', 'wakeup:' .. string.match(owner, '^(.*)/'), wakeup) end
return {'queued', over, old}
