--include now
--include entry_time
--include entries
--include receipts
--include trim_front
-- Drops and counts the entries of a queue that are older than `lifetime_ms`, a lot of them at most.
-- Returns the number, and whether no such entry is left.
-- `first` is the channel's bound: no entry is before it, so the queue is read only if the bound itself is too old.
-- `now` is the time, if the caller has asked for it.
local function drop_expired(channel, queue, receipts, has_receipts, first, lifetime_ms, now)
  if not first then return 0, true end
  local oldest_ms = math.max(0, (now or now_ms()) - lifetime_ms)
  if ms_of(first) >= oldest_ms then return 0, true end
  local oldest = string.format('%.0f-0', oldest_ms)
  local dropped, is_all = trim_front(queue, oldest, RECEIPTS_LOT)
  local left = first_entry(queue)
  if dropped > 0 then
    redis.call('HINCRBY', channel, 'dropped', dropped)
    local kept = not is_all and left and left[1] or oldest
    if has_receipts then mark_receipts(channel, receipts, '-', '(' .. kept, 'dropped', 'too-old') end
  end
  write_first(channel, left)
  return dropped, is_all
end
