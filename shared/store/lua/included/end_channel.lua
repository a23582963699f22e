-- Deletes a channel with its lease, queue and receipts; returns how many notifications were pending.
-- Needs receipts.lua.
local function end_channel(channel, lease, queue, receipts, reason)
  local lost = redis.call('XLEN', queue)
  mark_receipts(receipts, '-', '+', 'dropped', reason)
  redis.call('DEL', channel, lease, queue, receipts)
  return lost
end
