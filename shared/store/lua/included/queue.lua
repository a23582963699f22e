-- Reading a queue.

-- Iterates over at most `count` entries from `from` on. XRANGE runs in growing steps: entries may be large, and most
-- callers stop at a limit of bytes.
local function entries_from(queue, from, count)
  local step, page, i = 4, nil, 0
  return function()
    if not page or i == #page then
      if count <= 0 or (page and #page < step) then return nil end
      step = math.min(count, step * 2)
      count = count - step
      page, i = redis.call('XRANGE', queue, from, '+', 'COUNT', step), 0
      if #page == 0 then return nil end
      from = '(' .. page[#page][1]
    end
    i = i + 1
    return page[i]
  end
end

local function first_entry(queue) return redis.call('XRANGE', queue, '-', '+', 'COUNT', 1)[1] end

-- The newest id that the queue has given out, '0-0' if it does not exist.
local function last_id(queue)
  if redis.call('EXISTS', queue) == 0 then return '0-0' end
  local info = redis.call('XINFO', 'STREAM', queue)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end

local function ms_of(entry_id) return tonumber(string.match(entry_id, '^%d+')) end
