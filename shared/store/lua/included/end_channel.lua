-- Deletes a channel with its owner, queue and receipts; returns how many notifications were pending.
-- The hash goes with the queue: what it knows of the queue must not outlive it. Needs receipts.lua.
local function end_channel(channel, queue, receipts, reason)
  local lost = redis.call('XLEN', queue)
  mark_receipts(channel, receipts, '-', '+', 'dropped', reason)
  redis.call('DEL', channel, queue, receipts)
  return lost
end
