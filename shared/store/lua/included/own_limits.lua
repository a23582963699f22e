-- What a channel has of its own, `<bytes> <ms>` of its queue, each of which may be missing, a w behind them for a native
-- webhook, and a p while it is silent. Returns the limits that hold, which are never above the
-- installation's, and whether the channel is paused or disabled. A native webhook's queue keeps what is up to 7 days
-- old where others keep it for less, but never over seven times as long as these (model/webhooks.py).
local WEBHOOK_AGE_MS = 7 * 24 * 60 * 60 * 1000
local function limits_of(own, bytes, ms)
  if not own then return bytes, ms, false end
  local own_bytes, own_ms, webhook, paused = string.match(own, '^(%d*) (%d*)(w?)(p?)$')
  if webhook == 'w' then ms = math.max(ms, math.min(7 * ms, WEBHOOK_AGE_MS)) end
  return math.min(bytes, tonumber(own_bytes) or bytes), math.min(ms, tonumber(own_ms) or ms), paused == 'p'
end
