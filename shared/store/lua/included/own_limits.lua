-- The limits of one queue: the installation's, or less if its channel has limits of its own (`<bytes> <ms>`, each of
-- which may be missing).
local function limits_of(own, bytes, ms)
  if not own then return bytes, ms end
  local own_bytes, own_ms = string.match(own, '^(%d*) (%d*)$')
  return math.min(bytes, tonumber(own_bytes) or bytes), math.min(ms, tonumber(own_ms) or ms)
end
