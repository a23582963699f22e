--include entries
-- Removes one entry, wherever it stands in a queue; returns whether it was there. The bound of the total before the first
-- pending entry grows by its size: without that, one entry that waits at the front would make the queue seem full.
local function remove_entry(channel, queue, entry_id)
  local entry = redis.call('XRANGE', queue, entry_id, entry_id)[1]
  if not entry then return false end
  redis.call('XDEL', queue, entry_id)
  if redis.call('XLEN', queue) == 0 then
    redis.call('HDEL', channel, 'first', 'first_total')
  elseif redis.call('HEXISTS', channel, 'first_total') == 1 then
    redis.call('HINCRBY', channel, 'first_total', size_of_entry(entry))
  end
  return true
end
