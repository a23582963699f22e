--include retained_bytes
local function size_of_retained(entry)
  local values, size = entry[2], RETAINED_BYTES
  for n = 2, #values, 2 do size = size + #values[n] end
  return size
end

-- Removes the names of entries by which they are found: not of an entry whose event id was retained again since.
-- The names have the hash tag of the streams, so they may be made here.
local function forget_events(prefix, stream, entries)
  local hash = string.match(stream, '[^:]*$')
  for _, entry in ipairs(entries) do
    local name = prefix .. entry[2][10]
    if redis.call('GET', name) == hash .. ' ' .. entry[1] then redis.call('DEL', name) end
  end
end
