-- Whether a request may write no more: its deadline in ms has passed by Redis' clock. Its mark is about to end or has
-- ended, so a repetition may have begun, and what comes now would arrive behind that.
-- It brings a `now_ms` of its own: scripts include it within a block, and what is defined there is unknown behind it.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function is_late(deadline_ms) return now_ms() > tonumber(deadline_ms) end
