-- Adds at most `count` entries of a queue from `from` on to a list: about `bytes` of them, but at least one.
-- XRANGE runs in growing steps: entries may be large, and the limit of bytes is often reached first.
-- Returns whether it reached the end of the queue; false when it stopped at a limit.
local function read_entries(list, queue, from, count, bytes)
  local step, is_first = 8, true
  while count > 0 do
    step = math.min(count, step)
    local page = redis.call('XRANGE', queue, from, '+', 'COUNT', step)
    for _, entry in ipairs(page) do
      bytes = bytes - #entry[2][6]
      if bytes < 0 and not is_first then return false end
      list[#list + 1], is_first = entry, false
    end
    if #page < step then return true end
    from, count, step = '(' .. page[#page][1], count - step, step * 2
  end
  return false
end
