--include entry_size
-- The first entry of a queue, and the bound of where the queue begins.

local function first_entry(queue) return redis.call('XRANGE', queue, '-', '+', 'COUNT', 1)[1] end

local function size_of_entry(entry)
  local values = entry[2]
  local attributes = values[15] == 'attributes' and values[16] or ''
  return size_of(values[4], values[6], values[8], values[14] or '') + #attributes
end

-- The sum of the sizes before an entry.
local function total_before(entry) return tonumber(entry[2][12]) - size_of_entry(entry) end

-- Writes the first entry of a queue as its channel's bound; an empty queue has no bound. The total before it never goes
-- back below `least`, by default what it was: it also counts what is gone behind the first entry (remove_entry.lua).
local function write_first(channel, first, least)
  if first then
    least = least or tonumber(redis.call('HGET', channel, 'first_total') or 0)
    redis.call('HSET', channel, 'first', first[1], 'first_total', math.max(least, total_before(first)))
  else
    redis.call('HDEL', channel, 'first', 'first_total')
  end
end
