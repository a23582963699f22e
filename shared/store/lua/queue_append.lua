#!lua
-- Appends notifications to a channel's queue, in the order given, all or none, and wakes the owner.
-- Checks the channel in the same step: nothing is queued after a deletion, nor after a revocation, which deletes the
-- channel too. Publishes the wakeup in the same step: a publisher that dies afterwards leaves no receiver waiting. A
-- short append travels inside the wakeup, so that an owner that has sent the entry before it need not read.
-- Drops and counts the oldest above the limit. The channel's hash has a lower bound of where the queue begins: the queue
-- is read only when the bound says that it may be too large. What is too old, or more than this script may drop, is left
-- to queue_trim.lua: the reply asks the caller to run it. The bound is too old when it is past the lifetime by a part of
-- it, so that a steady stream of appends to an old queue asks now and then, not each time.
-- A paused channel's owner is not woken: it may not deliver.
-- No allow-oom: a full Redis refuses appends, and nothing else.
-- KEYS: channel, queue, receipts, and for a step of the channel's replay its record
-- ARGV: limit in bytes, lifetime in ms, traceparent or '', version of the bindings or '', deadline in ms or '' for none,
--       or the step (replay_cursor.lua),
--       then groups of six: id, topic, data, name, time, and what few events have: the hash of its identity if it wants
--       a receipt, then the attributes of a CloudEvent, which begin with a brace
-- Reply: 'queued' | {'queued', dropped above the limit, '' or the channel's name if there may be more to drop}
--      | {'absent'} | {'stale', version of the channel's bindings} | {'late'} | {'full' | 'fenced' | 'moved'}: no such step
--      Nearly every reply is the first one: a table takes Redis a tenth of the script's time.
-- Touches at most: the events of one call (100; queues.py) with their receipts, and 48 entries that it drops with theirs.
--include entry_size
--include entry_time
local RECEIPT_TTL_MS = 60 * 60 * 1000
local DROP_LOT = 48
local LIFETIME_PARTS = 64
-- Of the text of the entries. Redis disconnects a subscriber with 32 MiB of unread wakeups.
local INLINE_BYTES = 32768

if ARGV[5] ~= '' then
-- Included here: few appends have a deadline or are steps of a replay, and Redis spends time on making functions.
  if KEYS[4] then
--include replay_cursor
    local refused = move_cursor(KEYS[4], KEYS[1], KEYS[2], ARGV[5], (#ARGV - 5) / 6)
    if refused then return refused end
  else
--include late
    if is_late(ARGV[5]) then return {'late'} end
  end
end
local kind, generation, bindings_version, owner, serialization, next_attempt_ms, tail, previous_total, first,
  first_total, has_receipts, own_limits = unpack(redis.call('HMGET', KEYS[1], 'kind', 'generation',
    'bindings_version', 'owner', 'serialization', 'next_attempt_ms', 'tail', 'total', 'first', 'first_total', 'receipts',
    'limits'))
if not kind then return {'absent'} end
-- A gateway that knows other bindings must read them first: an answered removal counts at once.
local version = bindings_version or generation
if ARGV[4] ~= '' and ARGV[4] ~= version then return {'stale', version} end

previous_total = tonumber(previous_total or 0)
local total, entry_ids, hashes = previous_total, {}, nil
for i = 6, #ARGV, 6 do
  -- The trail: the traceparent, behind an r if the publisher wants a receipt.
  local id, topic, data, name, time, trail = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[3]
  local attributes
  if ARGV[i + 5] ~= '' then
    local hash
    hash, attributes = string.match(ARGV[i + 5], '^(%x*)(.*)$')
    if hash ~= '' then
      trail, hashes = 'r' .. trail, hashes or {}
      hashes[#entry_ids + 1] = hash
    end
    attributes = attributes ~= '' and attributes
  end
  total = total + size_of(topic, data, name, trail) + (attributes and #attributes or 0)
  if attributes then
    entry_ids[#entry_ids + 1] = redis.call('XADD', KEYS[2], '*', 'id', id, 'topic', topic, 'data', data,
      'name', name, 'time', time, 'total', total, 'trail', trail, 'attributes', attributes)
  elseif trail == '' then
    entry_ids[#entry_ids + 1] = redis.call('XADD', KEYS[2], '*', 'id', id, 'topic', topic, 'data', data,
      'name', name, 'time', time, 'total', total)
  else
    entry_ids[#entry_ids + 1] = redis.call('XADD', KEYS[2], '*', 'id', id, 'topic', topic, 'data', data,
      'name', name, 'time', time, 'total', total, 'trail', trail)
  end
end

local has_more = false
if hashes then
--include most_receipts
  -- Without the field none are tracked: delete leftovers, whose ids may be in the way.
  if not has_receipts then redis.call('UNLINK', KEYS[3]) end
  local prefix = string.sub(KEYS[3], 1, -2) .. ':'
  for n, entry_id in ipairs(entry_ids) do
    local hash = hashes[n]
    if hash then
      redis.call('XADD', KEYS[3], entry_id, 'event', hash)
      redis.call('DEL', prefix .. hash)
      redis.call('HSET', prefix .. hash, 'entry', entry_id, 'generation', generation, 'queued', ms_of(entry_id))
      redis.call('PEXPIRE', prefix .. hash, RECEIPT_TTL_MS)
    end
  end
  redis.call('PEXPIRE', KEYS[3], RECEIPT_TTL_MS)
  redis.call('HSET', KEYS[1], 'receipts', 1)
  has_more = redis.call('XLEN', KEYS[3]) > MOST_RECEIPTS
end
local over, limit, lifetime_ms, paused = 0, tonumber(ARGV[1]), tonumber(ARGV[2]), false
if own_limits then
-- Included here: few channels have limits of their own or are paused, and Redis spends time on making functions.
--include own_limits
  limit, lifetime_ms, paused = limits_of(own_limits, limit, lifetime_ms)
end
if first then
  redis.call('HSET', KEYS[1], 'tail', entry_ids[#entry_ids], 'total', total)
  -- An entry's id has the time of Redis, which saves a command.
  local age_ms = ms_of(entry_ids[#entry_ids]) - ms_of(first)
  has_more = has_more or age_ms > lifetime_ms + lifetime_ms / LIFETIME_PARTS
else
  -- The queue was empty: these entries begin it.
  first_total = previous_total
  redis.call('HSET', KEYS[1], 'tail', entry_ids[#entry_ids], 'total', total, 'first', entry_ids[1],
    'first_total', first_total)
end
if total - tonumber(first_total) > limit then
-- Included here, as this is rare, and Redis spends time on making functions.
--include drop_above
  local is_all
  over, is_all = drop_above(KEYS[1], KEYS[2], KEYS[3], has_receipts or hashes, limit, total, DROP_LOT)
  has_more = has_more or not is_all
end

local wakeup = string.match(KEYS[2], '{(.*)}')
if paused then
  owner = nil
elseif kind == 'webhook' then
  -- Without an owner any dispatcher may deliver, unless the next attempt is still to come.
  local backs_off = next_attempt_ms and tonumber(next_attempt_ms) > tonumber(redis.call('TIME')[1]) * 1000
  owner = owner or not backs_off and 'dispatchers/any'
elseif owner and total - previous_total - ENTRY_BYTES * #entry_ids <= INLINE_BYTES and over == 0 and not hashes then
  -- A wakeup with inline entries, in parts between NULs: neither JSON nor the other parts can contain one.
  -- inline_entries.py parses it.
  local parts = {'+' .. wakeup .. '\0' .. owner .. '\0' .. generation .. '\0' .. (tail or '') .. '\0'
    .. (serialization or '')}
  for n, entry_id in ipairs(entry_ids) do
    local i = 6 * n
    parts[n + 1] = entry_id .. '\0' .. ARGV[i] .. '\0' .. ARGV[i + 1] .. '\0' .. ARGV[i + 2] .. '\0' .. ARGV[i + 3]
      .. '\0' .. ARGV[i + 4] .. '\0' .. ARGV[3] .. ARGV[i + 5]
  end
  wakeup = table.concat(parts, '\0')
end
if owner then redis.call('PUBLISH', 'wakeup:' .. string.match(owner, '^(.*)/'), wakeup) end
if over == 0 and not has_more then return 'queued' end
return {'queued', over, has_more and KEYS[1] or ''}
