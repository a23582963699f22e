#!lua
-- Appends events to the retained log of one topic, in the order given, and trims what the rule no longer keeps.
-- The state of the log outlives its entries: so a read tells of any offset whether it was the last one, the last one
-- trimmed, or one that was lost. All of it is written in one step, or a reader could take a gap for the end.
-- Offsets are entry ids, and rise also when the entries have ended meanwhile and the clock went back.
-- Publishes a live wakeup in the same step: what was appended, and the offset before it. A reader who is there passes it on,
-- and any other one reads; so a lost wakeup leaves no gap. It names the offset before also when that entry is gone.
-- No allow-oom: a full Redis refuses it.
-- KEYS: stream, state, the topics of this place
-- ARGV: epoch of a new log, topic, most entries, longest age in ms, ms for which the state outlives the entries, ms for
--       which the topics are remembered, most topics of this place, deadline in ms or '' for none,
--       then groups of six: id, data, name, time, hash of the id, and what else is known of the event (JSON) or ''
-- Reply: {'appended', topics that made room, offset, ...} | {'late'}
-- Touches at most: the events of one call (64; streams.py) with their names, 96 that it trims with theirs, and 2 topics.
--include stream_entries
--include entry_time
local TRIM_LOT, TRIM_BYTES, AGE_PARTS = 96, 1024 * 1024, 64
-- Redis disconnects a subscriber with 32 MiB of unread wakeups.
local INLINE_BYTES = 32768

if ARGV[8] ~= '' then
--include late
  if is_late(ARGV[8]) then return {'late'} end
end
local stream, state, places = KEYS[1], KEYS[2], KEYS[3]
local topic, most, age_ms = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local epoch, last, first_ms, bytes = unpack(redis.call('HMGET', state, 'epoch', 'last', 'first_ms', 'bytes'))
local length = redis.call('XLEN', stream)
if not epoch then
  epoch = ARGV[1]
  redis.call('HSET', state, 'epoch', epoch, 'topic', topic)
  -- Redis has lost the state, or forgot it: entries without it prove nothing.
  if length > 0 then redis.call('UNLINK', stream) end
  length, last = 0, false
end
if length == 0 then
  first_ms, bytes = false, 0
  -- After a purge its reason stays.
  if last and redis.call('HGET', state, 'trimmed') ~= last then
    redis.call('HSET', state, 'trimmed', last, 'reason', 'expired')
  end
end

local prefix, hash = string.sub(places, 1, -2) .. '-event:', string.match(stream, '[^:]*$')
local reply, at = {'appended', 0}, '*'
local wakeup, inline_bytes = {'+' .. epoch, last or '0-0', ''}, 0
if last and length == 0 then
  local time = redis.call('TIME')
  if time[1] * 1000 + math.floor(time[2] / 1000) <= ms_of(last) then
    at = string.format('%.0f-0', ms_of(last) + 1)
  end
end
for i = 9, #ARGV, 6 do
  local id, data, name, time, of, more = unpack(ARGV, i, i + 5)
  if more == '' then
    last = redis.call('XADD', stream, at, 'id', id, 'data', data, 'name', name, 'time', time, 'hash', of)
  else
    last = redis.call('XADD', stream, at, 'id', id, 'data', data, 'name', name, 'time', time, 'hash', of,
      'more', more)
  end
  redis.call('SET', prefix .. of, hash .. ' ' .. last, 'PX', age_ms)
  bytes = bytes + #id + #data + #name + #time + #of + #more + RETAINED_BYTES
  at, reply[#reply + 1] = '*', last
  -- What is for one channel or one customer is not for readers. `_more_of` in streams.py begins with these.
  if not string.find(more, '^{"to":') and not string.find(more, '^{"customer":') then
    inline_bytes = inline_bytes + #id + #data + #name + #time + #more
    if inline_bytes <= INLINE_BYTES then
      wakeup[#wakeup + 1] = table.concat({last, id, data, name, time, more}, '\0')
    end
  end
end
length = length + #reply - 2
local now = ms_of(last)
first_ms = tonumber(first_ms or ms_of(reply[3]))

local over, oldest_ms = length - most, now - age_ms
-- A steady stream of old entries is trimmed now and then, not with each append.
if over > 0 or first_ms < oldest_ms - age_ms / AGE_PARTS then
  local count, copied, from, first, trimmed = 0, 0, '-', nil, {}
  repeat
    local page = redis.call('XRANGE', stream, from, '+', 'COUNT', math.min(16, TRIM_LOT - count))
    for _, entry in ipairs(page) do
      if count >= over and ms_of(entry[1]) >= oldest_ms then
        first = entry
        break
      end
      local size = size_of_retained(entry)
      count, copied, bytes, from = count + 1, copied + size, bytes - size, '(' .. entry[1]
      trimmed[count] = entry
    end
  until first or #page == 0 or count >= TRIM_LOT or copied > TRIM_BYTES
  if count > 0 then
    redis.call('XTRIM', stream, 'MAXLEN', length - count)
    forget_events(prefix, stream, trimmed)
    redis.call('HSET', state, 'trimmed', trimmed[count][1], 'reason', count > over and 'expired' or 'trimmed')
  end
  first_ms = ms_of((first or trimmed[count])[1])
end
redis.call('HSET', state, 'last', last, 'first_ms', first_ms, 'bytes', bytes, 'age_ms', age_ms)
redis.call('PEXPIRE', stream, age_ms)
redis.call('PEXPIRE', state, age_ms + ARGV[5])

-- In parts between NULs: neither JSON nor the other parts can contain one. stream_wakeups.py parses it.
wakeup[3] = last
if inline_bytes > INLINE_BYTES then wakeup = {'-' .. epoch, wakeup[2], last} end
redis.call('SPUBLISH', string.sub(places, 1, -2) .. '-live:' .. hash, table.concat(wakeup, '\0'))

local member = hash .. ' ' .. topic
redis.call('ZADD', places, now + age_ms + ARGV[5], member)
redis.call('PEXPIRE', places, ARGV[6])
-- Those whose state has ended, and those that would end first when there are too many: 2 at a time, since one comes.
local ends = redis.call('ZRANGE', places, 0, 2, 'WITHSCORES')
local too_many = redis.call('ZCARD', places) - ARGV[7]
for i = 1, #ends, 2 do
  if ends[i] ~= member and reply[2] < 2 and (tonumber(ends[i + 1]) < now or too_many > reply[2]) then
    local names, of = string.sub(places, 1, -2), string.sub(ends[i], 1, #hash)
    redis.call('UNLINK', names .. ':' .. of, names .. '-state:' .. of)
    redis.call('ZREM', places, ends[i])
    reply[2] = reply[2] + 1
  end
end
return reply
