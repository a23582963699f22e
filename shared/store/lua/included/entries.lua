--include entry_size
-- The first entry of a queue, and the bound of where the queue begins.

local function first_entry(queue) return redis.call('XRANGE', queue, '-', '+', 'COUNT', 1)[1] end

-- The sum of the sizes before an entry.
local function total_before(entry)
  local values = entry[2]
  local attributes = values[15] == 'attributes' and values[16] or ''
  return tonumber(values[12]) - size_of(values[4], values[6], values[8], values[14] or '') - #attributes
end

-- Writes the first entry of a queue as its channel's bound; an empty queue has no bound.
local function write_first(channel, first)
  if first then
    redis.call('HSET', channel, 'first', first[1], 'first_total', total_before(first))
  else
    redis.call('HDEL', channel, 'first', 'first_total')
  end
end
