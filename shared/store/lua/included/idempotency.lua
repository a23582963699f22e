-- Responses of requests with an Idempotency-Key: one hash for the responses of six hours by Redis' clock. A field is a
-- hash of the Idempotency-Key, its value the fingerprint of the request (16 bytes) and the response behind it.
-- The names have the prefix's hash tag, so they may be made here.
local PERIOD_S = 6 * 60 * 60
-- This period and the four before it: a day at least.
local PERIODS = 5
local FINGERPRINT_BYTES = 16

--include now
local begun_ms = now_ms()
local now_s = math.floor(begun_ms / 1000)
local period = math.floor(now_s / PERIOD_S)

local function responses(prefix, age) return prefix .. string.format('%.0f', period - age) end

-- The fingerprint and the response that are kept under a field; nil for none.
local function kept_response(prefix, field)
  for age = 0, PERIODS - 1 do
    local kept = redis.call('HGET', responses(prefix, age), field)
    if kept then return string.sub(kept, 1, FINGERPRINT_BYTES), string.sub(kept, FINGERPRINT_BYTES + 1) end
  end
end

-- The fingerprint and the runner of the request that is running; nil for none.
local function running_request(name)
  local running = redis.call('GET', name)
  if running then return string.sub(running, 1, FINGERPRINT_BYTES), string.sub(running, FINGERPRINT_BYTES + 1) end
end
