#!lua
-- Appends events to the retained log of one topic, in the order given, and trims what the rule no longer keeps.
-- The state of the log outlives its entries: so a read tells of any offset whether it was the last one, the last one
-- trimmed, or one that was lost. All of it is written in one step, or a reader could take a gap for the end.
-- Offsets are entry ids, and rise also when the entries have ended meanwhile and the clock went back. The number behind the
-- ms has 20 bits of the event's identity at its end. Without them a primary that takes over with a clock that is behind
-- could give the offset of an event that is lost to another one, and who was there would not notice.
-- Publishes a live wakeup in the same step: what was appended, and the offset before it. A reader who is there passes it on,
-- and any other one reads; so a lost wakeup leaves no gap. It names the offset before also when that entry is gone.
-- When log and state end is written now and then, not with each append: each time for a part of the age longer than it must.
-- No allow-oom: a full Redis refuses it.
-- KEYS: stream, state, the topics of this place
-- ARGV: epoch of a new log, topic, most entries, longest age in ms, deadline in ms or '' for none,
--       ms for which the state outlives the entries, ms for which the topics are remembered, and most topics of this place,
--       in one text,
--       then groups of six: id, data, name, time, hash of the identity, and what else is known of the event (JSON) or ''
-- Reply: {'appended', topics that made room, offset, ...} | {'late'}
-- Touches at most: the events of one call (64; streams.py) with their names, 96 that it trims with theirs, and 2 topics.
--include retained_bytes
--include entry_time
local AGE_PARTS, SALTS = 64, 1048576
-- Redis disconnects a subscriber with 32 MiB of unread wakeups.
local INLINE_BYTES = 32768

if ARGV[5] ~= '' then
--include late
  if is_late(ARGV[5]) then return {'late'} end
end
local call = redis.call
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local reply = {'appended', 0}
local stream, state, places = KEYS[1], KEYS[2], KEYS[3]
local most, age_ms = tonumber(ARGV[3]), tonumber(ARGV[4])
local epoch, last, first_ms, bytes, kept_age, kept_ms, length =
  unpack(call('HMGET', state, 'epoch', 'last', 'first_ms', 'bytes', 'age_ms', 'kept_ms', 'count'))
if not epoch then
  epoch = ARGV[1]
  call('HSET', state, 'epoch', epoch, 'topic', ARGV[2])
  -- Redis has lost the state, or forgot it: entries without it prove nothing.
  call('UNLINK', stream)
  last = false
end

-- The names of all of a place begin alike, and those of a topic end with its hash.
local prefix, hash = string.sub(places, 1, -2), string.sub(stream, -40)
local before, ms, number = last or '0-0', now, 0
if last then
  local last_ms, last_number = string.match(last, '^(%d+)%-(%d+)$')
  last_ms = tonumber(last_ms)
  if last_ms >= now then ms, number = last_ms, (math.floor(last_number / SALTS) + 1) * SALTS end
end
local inline, inline_bytes = '', 0
for i = 7, #ARGV, 6 do
  local id, data, name, time, of, more = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
  last = string.format('%d-%d', ms, number + tonumber(string.sub(of, 1, 5), 16))
  number = number + SALTS
  local is_there
  if more == '' then
    is_there = call('XADD', stream, 'NOMKSTREAM', last, 'id', id, 'data', data, 'name', name, 'time', time, 'hash', of)
  else
    is_there = call('XADD', stream, 'NOMKSTREAM', last, 'id', id, 'data', data, 'name', name, 'time', time, 'hash', of,
      'more', more)
  end
  if not is_there then
    -- It has no entries: it is new, or they have ended. After a purge its reason stays.
    if before ~= '0-0' and call('HGET', state, 'trimmed') ~= before then
      call('HSET', state, 'trimmed', before, 'reason', 'expired')
    end
    first_ms, bytes, kept_ms, length = false, 0, false, 0
    local entry = {'id', id, 'data', data, 'name', name, 'time', time, 'hash', of}
    if more ~= '' then entry[11], entry[12] = 'more', more end
    call('XADD', stream, last, unpack(entry))
  end
  call('SET', prefix .. '-event:' .. of, hash .. ' ' .. last, 'PX', age_ms)
  local size = #id + #data + #name + #time + #more
  bytes = bytes + size + #of + RETAINED_BYTES
  reply[#reply + 1] = last
  -- What is for one channel or one customer is not for readers. `_more_of` in streams.py begins with these.
  if more == '' or not string.find(more, '^{"to":') and not string.find(more, '^{"customer":') then
    inline_bytes = inline_bytes + size
    if inline_bytes <= INLINE_BYTES then
      inline = inline .. '\0' .. last .. '\0' .. id .. '\0' .. data .. '\0' .. name .. '\0' .. time .. '\0' .. more
    end
  end
end
local begins = not first_ms
first_ms = tonumber(first_ms or ms)

kept_ms = tonumber(kept_ms)
local is_kept = kept_ms and kept_age == ARGV[4] and now >= kept_ms and now < kept_ms + age_ms / AGE_PARTS
-- A steady stream of old entries is trimmed now and then, not with each append.
local oldest_ms = now - age_ms
local is_old = first_ms < oldest_ms - age_ms / AGE_PARTS
-- A gateway of an older release counts nothing: what is trimmed goes by what is there.
length = length and is_kept and length + #reply - 2 or most + 1
if is_old or length > most then length = call('XLEN', stream) end
local over = length - most
if over > 0 or is_old then
-- Included here: Redis spends time on making functions.
--include stream_entries
  local TRIM_LOT, TRIM_BYTES = 96, 1024 * 1024
  local count, copied, from, first, trimmed = 0, 0, '-', nil, {}
  repeat
    local most_read = math.min(16, (is_old and TRIM_LOT or math.min(over, TRIM_LOT)) - count)
    local page = call('XRANGE', stream, from, '+', 'COUNT', most_read)
    for _, entry in ipairs(page) do
      if count >= over and ms_of(entry[1]) >= oldest_ms then
        first = entry
        break
      end
      local size = size_of_retained(entry)
      count, copied, bytes, from = count + 1, copied + size, bytes - size, '(' .. entry[1]
      trimmed[count] = entry
    end
  until first or #page == 0 or count >= TRIM_LOT or copied > TRIM_BYTES or not is_old and count >= over
  if count > 0 then
    call('XTRIM', stream, 'MAXLEN', length - count)
    forget_events(prefix .. '-event:', stream, trimmed)
    -- Of the first one that is left, or less.
    first_ms = ms_of((first or trimmed[count])[1])
    call('HSET', state, 'last', last, 'bytes', bytes, 'count', length - count, 'first_ms', first_ms,
      'trimmed', trimmed[count][1], 'reason', count > over and 'expired' or 'trimmed')
  else
    call('HSET', state, 'last', last, 'bytes', bytes, 'count', length, 'first_ms', ms_of(first[1]))
  end
elseif begins then
  call('HSET', state, 'last', last, 'bytes', bytes, 'count', length, 'first_ms', first_ms)
else
  call('HSET', state, 'last', last, 'bytes', bytes, 'count', length)
end

-- In parts between NULs: neither JSON nor the other parts can contain one. stream_wakeups.py parses it.
local kind = '+'
if inline_bytes > INLINE_BYTES then kind, inline = '-', '' end
call('SPUBLISH', prefix .. '-live:' .. hash, kind .. epoch .. '\0' .. before .. '\0' .. last .. inline)

if not is_kept then
  -- The next one comes at the latest when this part is over, if there are events.
  local lasts_ms = age_ms + math.ceil(age_ms / AGE_PARTS) + 1
  local outlives_ms, remembered_ms, most_topics = string.match(ARGV[6], '^(%d+) (%d+) (%d+)$')
  call('HSET', state, 'age_ms', age_ms, 'kept_ms', now)
  call('PEXPIRE', stream, lasts_ms)
  call('PEXPIRE', state, lasts_ms + outlives_ms)
  local member = hash .. ' ' .. ARGV[2]
  call('ZADD', places, now + lasts_ms + outlives_ms, member)
  call('PEXPIRE', places, remembered_ms)
  -- Those whose state has ended, and those that would end first when there are too many: 2 at a time, since one comes.
  local ends = call('ZRANGE', places, 0, 2, 'WITHSCORES')
  local too_many = call('ZCARD', places) - most_topics
  for i = 1, #ends, 2 do
    if ends[i] ~= member and reply[2] < 2 and (tonumber(ends[i + 1]) < now or too_many > reply[2]) then
      local of = string.sub(ends[i], 1, #hash)
      call('UNLINK', prefix .. ':' .. of, prefix .. '-state:' .. of)
      call('ZREM', places, ends[i])
      reply[2] = reply[2] + 1
    end
  end
end
return reply
