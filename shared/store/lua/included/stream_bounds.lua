--include now
--include entry_time
-- What of a retained log is to be had. What is too old is not, though it is still there: it goes with the next append.
-- Returns its first entry or nil, the offset of the last one that is gone ('' when none is), and why it is gone.
local function bounds_of(stream, last, trimmed, reason, age_ms)
  local first = redis.call('XRANGE', stream, string.format('%.0f', now_ms() - age_ms), '+', 'COUNT', 1)[1]
  trimmed, reason = trimmed or '', reason or ''
  if not first then
    if trimmed ~= last then return nil, last, 'expired' end
    return nil, trimmed, reason
  end
  local old = redis.call('XREVRANGE', stream, '(' .. first[1], '-', 'COUNT', 1)[1]
  if old then return first, old[1], 'expired' end
  return first, trimmed, reason
end
