-- The time of this Redis in ms: what Redis stamped is judged by no other clock.
local function time_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
