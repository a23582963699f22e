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
