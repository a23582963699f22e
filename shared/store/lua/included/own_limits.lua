-- What a channel has of its own, `<bytes> <ms>` of its queue, each of which may be missing, and a p behind them while it
-- is paused. Returns the limits that hold, which are never above the installation's, and whether it is paused.
local function limits_of(own, bytes, ms)
  if not own then return bytes, ms, false end
  local own_bytes, own_ms, paused = string.match(own, '^(%d*) (%d*)(p?)$')
  return math.min(bytes, tonumber(own_bytes) or bytes), math.min(ms, tonumber(own_ms) or ms), paused == 'p'
end
