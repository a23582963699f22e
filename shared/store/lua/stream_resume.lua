#!lua flags=no-writes,allow-oom
-- Tells where a reader of a topic goes on, and reads what is there.
-- A mark proves that nothing is missing only if its entry is there, or was the last one, or the last one that is gone: Redis
-- may have lost its last writes, and an epoch alone is the same then. Check and read are one step: between two of them the
-- log could be trimmed, and what is read would have a gap.
-- Where something is missing, reading goes on behind the last entry up to the mark, so that no reader gets an event twice,
-- or at the first one to be had. That offset is a mark that is recovered.
-- KEYS: stream, state
-- ARGV: epoch and offset of the mark, or '' and latest or earliest; most entries, bytes
-- Reply: {epoch, reason or '', offset, first offset to be had or '', last offset ever, entry, ...}
-- Touches at most: as many entries as ARGV says (100; streams.py), 16 that are read in vain, and 3.
--include stream_bounds
--include read_retained
--include entry_order
local stream, marked, offset = KEYS[1], ARGV[1], ARGV[2]
local is_start = offset == 'latest' or offset == 'earliest'
local epoch, last, trimmed, reason, age_ms =
  unpack(redis.call('HMGET', KEYS[2], 'epoch', 'last', 'trimmed', 'reason', 'age_ms'))
if not epoch then
  if is_start then offset = '0-0' end
  -- The offset stays: should Redis find the log again, the reader has had what is up to it.
  return {'', marked ~= '' and 'lost' or '', offset, '', offset}
end

-- A purge adds one to the number of purges in the epoch (stream_purge.lua).
local function is_older(one, other)
  local base, number = string.match(one, '^(%x+)%-?(%d*)%-?%x*$')
  local of, purges = string.match(other, '^(%x+)%-?(%d*)')
  return base == of and tonumber('0' .. number) < tonumber('0' .. purges)
end

local first
first, trimmed, reason = bounds_of(stream, last, trimmed, reason, age_ms)
local beginning = trimmed ~= '' and trimmed or '0-0'
local why = ''
if offset == 'latest' then
  offset = last
elseif offset == 'earliest' then
  offset = beginning
elseif marked ~= '' and marked ~= epoch and is_older(marked, epoch) then
  offset, why = beginning, 'purged'
else
  local is_known = marked == '' or marked == epoch
  if not is_after(offset, beginning) then
    if not is_known then
      why = 'lost'
    elseif offset ~= beginning then
      why = reason
    end
    offset = beginning
  else
    local at = first and redis.call('XREVRANGE', stream, offset, first[1], 'COUNT', 1)[1]
    at = at and at[1] or beginning
    -- A reader who found no log has missed nothing of one that began behind its offset.
    if not is_known or at ~= offset and (marked ~= '' or at ~= '0-0') then why = 'lost' end
    offset = at
  end
end
local reply = {epoch, why, offset, first and first[1] or '', last}
if offset ~= last then read_retained(reply, stream, '(' .. offset, '+', tonumber(ARGV[3]), tonumber(ARGV[4])) end
return reply
