-- The last attempts of a webhook: a stream, whose bounds are a number, bytes and an age. Each entry knows its number and
-- the bytes before it, so the bounds are judged by the first entries and the last, without a walk through all.
local ATTEMPTS_KEPT = 200
local ATTEMPTS_BYTES = 512 * 1024
local ATTEMPTS_AGE_MS = 7 * 24 * 60 * 60 * 1000
-- More would wait: a step stays short, and each attempt adds one.
local ATTEMPTS_DROPPED = 8
local ATTEMPT_BYTES = 120

local function size_of_attempt(values) return ATTEMPT_BYTES + #values[8] + #values[10] + #values[14] end

-- The bytes of all attempts.
local function size_of_attempts(name)
  local newest = redis.call('XREVRANGE', name, '+', '-', 'COUNT', 1)[1]
  if not newest then return 0 end
  local oldest = redis.call('XRANGE', name, '-', '+', 'COUNT', 1)[1]
  return newest[2][4] + size_of_attempt(newest[2]) - oldest[2][4]
end

-- Adds an attempt and drops what is beyond a bound, the oldest first. `attempt` is {outcome, event ids, facts, details}.
-- Returns by how many bytes all have grown, which may be less than 0.
local function add_attempt(name, now, attempt, next_ms)
  local newest, n, before, at, seq = redis.call('XREVRANGE', name, '+', '-', 'COUNT', 1)[1], 1, 0, now, 0
  if newest then
    n, before = newest[2][2] + 1, newest[2][4] + size_of_attempt(newest[2])
    local last_ms, last_seq = string.match(newest[1], '^(%d+)-(%d+)$')
    -- Redis' clock may go back, and the ids of a stream may not.
    if tonumber(last_ms) >= now then at, seq = last_ms, last_seq + 1 end
  end
  local outcome, events, facts, details = unpack(attempt)
  redis.call('XADD', name, string.format('%.0f-%.0f', at, seq), 'n', string.format('%.0f', n),
    'before', string.format('%.0f', before), 'outcome', outcome, 'events', events, 'facts', facts,
    'next', next_ms or '', 'details', details)
  redis.call('PEXPIRE', name, ATTEMPTS_AGE_MS)
  local size = ATTEMPT_BYTES + #events + #facts + #details
  local function goes(entry)
    return entry and (n - entry[2][2] >= ATTEMPTS_KEPT or before + size - entry[2][4] > ATTEMPTS_BYTES
      or now - string.match(entry[1], '^%d+') > ATTEMPTS_AGE_MS)
  end
  local oldest = redis.call('XRANGE', name, '-', '+', 'COUNT', 2)
  if not goes(oldest[1]) then return size end
  if goes(oldest[2]) then oldest = redis.call('XRANGE', name, '-', '+', 'COUNT', ATTEMPTS_DROPPED + 1) end
  local kept = 2
  while kept < #oldest and goes(oldest[kept]) do kept = kept + 1 end
  redis.call('XTRIM', name, 'MINID', oldest[kept][1])
  return size - (oldest[kept][2][4] - oldest[1][2][4])
end
