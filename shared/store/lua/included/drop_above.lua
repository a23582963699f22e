--include entries
--include receipts
-- Drops and counts the oldest entries until what is pending, which ends at `total`, is within the limit in bytes, but
-- at most `lot` of them. Returns the number, and whether the queue is within the limit then.
-- Pending is what the entries' totals say, or less: what is gone between them counts in the bound of the first.
-- XRANGE runs in growing steps, and not for long with large entries: their text has to be copied.
local DROPPED_BYTES = 1024 * 1024
local function drop_above(channel, queue, receipts, has_receipts, limit, total, lot)
  local over, from, copied, step, first, wanted, page = 0, '-', 0, 4, nil, nil, nil
  local pending = total - tonumber(redis.call('HGET', channel, 'first_total') or 0)
  repeat
    wanted = math.min(step, lot - over)
    page = redis.call('XRANGE', queue, from, '+', 'COUNT', wanted)
    for _, entry in ipairs(page) do
      if math.min(pending, total - total_before(entry)) <= limit then
        first = entry
        break
      end
      over, from, copied = over + 1, '(' .. entry[1], copied + #entry[2][6]
      pending = pending - size_of_entry(entry)
    end
    step = math.min(16, step * 2)
  until first or #page < wanted or over >= lot or copied > DROPPED_BYTES
  if over > 0 then
    redis.call('XTRIM', queue, 'MAXLEN', redis.call('XLEN', queue) - over)
    redis.call('HINCRBY', channel, 'dropped', over)
    if has_receipts then mark_receipts(channel, receipts, '-', string.sub(from, 2), 'dropped', 'queue-full') end
  end
  first = first or first_entry(queue)
  write_first(channel, first, total - pending)
  return over, not first or math.min(pending, total - total_before(first)) <= limit
end
