-- The time in ms by Redis' clock. It alone judges what Redis stamped: the clocks of processes differ.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
