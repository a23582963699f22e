-- Adds retained events from `from` to `to` to a list: at most `count`, about so many bytes but at least one.
-- XRANGE runs in growing steps: entries may be large, and the limit of bytes is often reached first.
local function read_retained(list, stream, from, to, count, bytes)
  local step, is_first = 4, true
  while count > 0 do
    step = math.min(16, step * 2, count)
    local page = redis.call('XRANGE', stream, from, to, 'COUNT', step)
    for _, entry in ipairs(page) do
      bytes = bytes - #entry[2][4]
      if bytes < 0 and not is_first then return end
      list[#list + 1], from, is_first = entry, '(' .. entry[1], false
    end
    if #page < step then return end
    count = count - step
  end
end
