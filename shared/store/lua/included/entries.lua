-- Entries of a queue: their ids, their sizes, and the bound of where the queue begins.

-- About what Redis spends on an entry besides its text.
local ENTRY_BYTES = 220

local function size_of(topic, data, name, trail) return #topic + #data + #name + #trail + ENTRY_BYTES end

local function first_entry(queue) return redis.call('XRANGE', queue, '-', '+', 'COUNT', 1)[1] end

local function ms_of(entry_id) return tonumber(string.match(entry_id, '^%d+')) end

local function is_after(entry_id, other)
  local ms, sequence = string.match(entry_id, '(%d+)-(%d+)')
  local other_ms, other_sequence = string.match(other, '(%d+)-(%d+)')
  if ms ~= other_ms then return tonumber(ms) > tonumber(other_ms) end
  return tonumber(sequence) > tonumber(other_sequence)
end

-- The sum of the sizes before an entry.
local function total_before(entry)
  local values = entry[2]
  return tonumber(values[12]) - size_of(values[4], values[6], values[8], values[14] or '')
end

-- Writes the first entry of a queue as its channel's bound; an empty queue has no bound.
local function write_first(channel, first)
  if first then
    redis.call('HSET', channel, 'first', first[1], 'first_total', total_before(first))
  else
    redis.call('HDEL', channel, 'first', 'first_total')
  end
end
