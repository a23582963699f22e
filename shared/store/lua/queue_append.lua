#!lua
-- Appends notifications to a channel's queue, in the order given, all or none, and wakes the owner.
-- Checks the channel in the same step: nothing is queued after a deletion, nor after a revocation, which deletes the
-- channel too. Publishes the wakeup in the same step: a publisher that dies afterwards leaves no receiver waiting. A
-- short append travels inside the wakeup, so that an owner that has sent the entry before it need not read.
-- Drops and counts what is too old, and then the oldest above the limit. The channel's hash has a lower bound of where
-- the queue begins: the queue is read only when the bound says that it may be too old or too large.
-- No allow-oom: a full Redis refuses appends, and nothing else.
-- KEYS: channel, queue, receipts
-- ARGV: limit in bytes, the first entry id that is not too old, traceparent or '', version of the bindings or '',
--       then groups of six: id, topic, data, name, time, and the hash of the id if it wants a receipt, else ''
-- Reply: {'queued', dropped above the limit, dropped as too old} | {'absent'}
--      | {'stale', version of the channel's bindings}
-- Touches at most: the events of one request (10,000) with their receipts, and the entries that it drops.
--include receipts
--include entries
--include drop_expired
-- A script that ends the channel marks all of its receipts at once.
local MOST_RECEIPTS = 10000
local RECEIPT_TTL_MS = 60 * 60 * 1000
-- Redis disconnects a subscriber with 32 MiB of unread wakeups.
local INLINE_BYTES = 32768

-- Without `has_receipts` none are tracked: delete leftovers, whose ids may be in the way.
local function track_receipts(entry_ids, has_receipts)
  if not has_receipts then redis.call('DEL', KEYS[3]) end
  local prefix = string.sub(KEYS[3], 1, -2) .. ':'
  for n, entry_id in ipairs(entry_ids) do
    local hash = ARGV[6 * n + 4]
    if hash ~= '' then
      redis.call('XADD', KEYS[3], entry_id, 'event', hash)
      redis.call('DEL', prefix .. hash)
      redis.call('HSET', prefix .. hash, 'entry', entry_id, 'queued', string.match(entry_id, '^%d+'))
      redis.call('PEXPIRE', prefix .. hash, RECEIPT_TTL_MS)
    end
  end
  redis.call('PEXPIRE', KEYS[3], RECEIPT_TTL_MS)
  -- Delete the oldest above the limit: without tracking they would stay 'queued' for ever.
  local excess = redis.call('XLEN', KEYS[3]) - MOST_RECEIPTS
  for _, entry in ipairs(excess > 0 and redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', excess) or {}) do
    local receipt = prefix .. entry[2][2]
    if redis.call('HGET', receipt, 'entry') == entry[1] then redis.call('DEL', receipt) end
    redis.call('XDEL', KEYS[3], entry[1])
  end
end

-- Drops and counts the oldest until what is pending, which ends at `total`, is within the limit.
local function drop_above(limit, total, may_have_receipts)
  local over, from, first, page = 0, '-', nil, nil
  repeat
    page = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', 16)
    for _, entry in ipairs(page) do
      if total - total_before(entry) <= limit then
        first = entry
        break
      end
      over, from = over + 1, '(' .. entry[1]
    end
  until first or #page < 16
  if over > 0 then
    redis.call('XTRIM', KEYS[2], 'MAXLEN', redis.call('XLEN', KEYS[2]) - over)
    redis.call('HINCRBY', KEYS[1], 'dropped', over)
    if may_have_receipts then mark_receipts(KEYS[1], KEYS[3], '-', string.sub(from, 2), 'dropped', 'queue-full') end
  end
  write_first(KEYS[1], first)
  return over
end

local kind, generation, bindings_version, owner, serialization, next_attempt_ms, tail, previous_total, first,
  first_total, has_receipts = unpack(redis.call('HMGET', KEYS[1], 'kind', 'generation', 'bindings_version', 'owner',
    'serialization', 'next_attempt_ms', 'tail', 'total', 'first', 'first_total', 'receipts'))
if not kind then return {'absent'} end
-- A gateway that knows other bindings must read them first: an answered removal counts at once.
local version = bindings_version or generation
if ARGV[4] ~= '' and ARGV[4] ~= version then return {'stale', version} end

previous_total = tonumber(previous_total or 0)
local total, entry_ids, wants_receipts = previous_total, {}, false
for i = 5, #ARGV, 6 do
  -- The trail: the traceparent, behind an r if the publisher wants a receipt.
  local id, topic, data, name, time, trail = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[3]
  if ARGV[i + 5] ~= '' then trail, wants_receipts = 'r' .. trail, true end
  total = total + size_of(topic, data, name, trail)
  if trail == '' then
    entry_ids[#entry_ids + 1] = redis.call('XADD', KEYS[2], '*', 'id', id, 'topic', topic, 'data', data,
      'name', name, 'time', time, 'total', total)
  else
    entry_ids[#entry_ids + 1] = redis.call('XADD', KEYS[2], '*', 'id', id, 'topic', topic, 'data', data,
      'name', name, 'time', time, 'total', total, 'trail', trail)
  end
end

if wants_receipts then
  track_receipts(entry_ids, has_receipts)
  redis.call('HSET', KEYS[1], 'receipts', 1)
end
local old, over, limit = 0, 0, tonumber(ARGV[1])
if first then
  redis.call('HSET', KEYS[1], 'tail', entry_ids[#entry_ids], 'total', total)
  old = drop_expired(KEYS[1], KEYS[2], KEYS[3], first, ARGV[2])
else
  -- The queue was empty: these entries begin it.
  first_total = previous_total
  redis.call('HSET', KEYS[1], 'tail', entry_ids[#entry_ids], 'total', total, 'first', entry_ids[1],
    'first_total', first_total)
end
if total - tonumber(first_total) > limit then
  over = drop_above(limit, total, has_receipts or wants_receipts)
end

local wakeup = string.match(KEYS[2], '{(.*)}')
if kind == 'webhook' then
  -- Without an owner any dispatcher may deliver, unless the next attempt is still to come.
  local backs_off = next_attempt_ms and tonumber(next_attempt_ms) > tonumber(redis.call('TIME')[1]) * 1000
  owner = owner or not backs_off and 'dispatchers/any'
elseif owner and total - previous_total <= INLINE_BYTES and over + old == 0 and not wants_receipts then
  -- A wakeup with inline entries, in parts between NULs: neither JSON nor the other parts can contain one.
  -- inline_entries.py parses it.
  local parts = {'+' .. wakeup, owner, generation, tail or '', serialization or ''}
  for n, entry_id in ipairs(entry_ids) do
    local i = 6 * n - 1
    parts[n + 5] = table.concat({entry_id, ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[3]}, '\0')
  end
  wakeup = table.concat(parts, '\0')
end
if owner then redis.call('PUBLISH', 'wakeup:' .. string.match(owner, '^(.*)/'), wakeup) end
return {'queued', over, old}
