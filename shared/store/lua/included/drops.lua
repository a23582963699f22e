-- Notifications that no receiver gets: those older than the queue's lifetime, and those of a channel that ends.
-- Needs receipts.lua.

-- Drops and counts the entries before `oldest`; returns their number.
local function drop_expired(channel, queue, receipts, oldest)
  local dropped = redis.call('XTRIM', queue, 'MINID', oldest)
  if dropped > 0 then
    if redis.call('EXISTS', channel) == 1 then redis.call('HINCRBY', channel, 'dropped', dropped) end
    mark_receipts(receipts, '-', '(' .. oldest, 'dropped', 'too-old')
  end
  return dropped
end

-- Deletes a channel with its lease, queue and receipts; returns how many notifications were pending.
local function end_channel(channel, lease, queue, receipts, reason)
  local lost = redis.call('XLEN', queue)
  mark_receipts(receipts, '-', '+', 'dropped', reason)
  redis.call('DEL', channel, lease, queue, receipts)
  return lost
end
