-- Drops and counts the entries of a queue before `oldest`; returns their number. Needs receipts.lua and entries.lua.
-- `first` is the channel's bound: no entry is before it, so the queue is read only if the bound itself is too old.
local function drop_expired(channel, queue, receipts, first, oldest)
  if not first or ms_of(first) >= ms_of(oldest) then return 0 end
  local dropped = redis.call('XTRIM', queue, 'MINID', oldest)
  if dropped > 0 then
    redis.call('HINCRBY', channel, 'dropped', dropped)
    mark_receipts(channel, receipts, '-', '(' .. oldest, 'dropped', 'too-old')
  end
  write_first(channel, first_entry(queue))
  return dropped
end
