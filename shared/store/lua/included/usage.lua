-- What an account has stored, in bytes. Receipts and responses end by themselves: each is counted in a field of the time
-- in which it was stored, by Redis' clock, which goes when that is over.
local PERIOD_MS = {receipts = 10 * 60 * 1000, responses = 6 * 60 * 60 * 1000}
-- Behind the present one. A receipt lives for an hour, a response for a day and a half.
local PERIODS = {receipts = 6, responses = 6}
local USAGE_TTL_MS = 48 * 60 * 60 * 1000

local function clock_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function field_of(kind, now) return kind .. ':' .. string.format('%.0f', math.floor(now / PERIOD_MS[kind])) end

-- All fields as numbers, and the sum of what is stored now. Removes the fields whose time is over.
local function read_usage(usage, now)
  local fields, sum, list = {}, 0, redis.call('HGETALL', usage)
  for i = 1, #list, 2 do
    local kind, period = string.match(list[i], '^(%a+):(%d+)$')
    local value = tonumber(list[i + 1])
    if not kind then
      fields[list[i]] = value
    elseif tonumber(period) + PERIODS[kind] < math.floor(now / PERIOD_MS[kind]) then
      redis.call('HDEL', usage, list[i])
    else
      sum = sum + math.max(0, value)
    end
  end
  local kept = sum
  for _, kind in ipairs({'queues', 'sessions', 'device_types', 'streams'}) do sum = sum + math.max(0, fields[kind] or 0) end
  return fields, sum, kept
end
