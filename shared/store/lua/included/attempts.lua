-- The last attempts of a webhook: a stream, whose bounds are a number, bytes and an age. Each entry has a head, `<number>
-- <bytes before it> <its bytes> <outcome> <next attempt in ms, or ->`: so the bounds are judged by the first entries and
-- the last, without a walk through all. Its other fields are events, facts and details.
local ATTEMPTS_KEPT = 200
local ATTEMPTS_BYTES = 512 * 1024
local ATTEMPTS_AGE_MS = 7 * 24 * 60 * 60 * 1000
-- More would wait: a step stays short. A success is small, and looks for what is to go only now and then.
local ATTEMPTS_DROPPED = 16
local SUCCESSES_BETWEEN = 4
local ATTEMPT_BYTES = 120

local function head_of(entry)
  local n, before, size = string.match(entry[2][2], '^(%d+) (%d+) (%d+)')
  return tonumber(n), tonumber(before), tonumber(size)
end

-- The bytes of all attempts.
local function size_of_attempts(name)
  local newest = redis.call('XREVRANGE', name, '+', '-', 'COUNT', 1)[1]
  if not newest then return 0 end
  local _, before, size = head_of(newest)
  local _, before_all = head_of(redis.call('XRANGE', name, '-', '+', 'COUNT', 1)[1])
  return before + size - before_all
end

-- Drops what is beyond a bound, the oldest first; returns the bytes that have gone. `n` and `all` are those of the last.
local function trim_attempts(name, now, n, all)
  local function goes(entry)
    local number, before = head_of(entry)
    return n - number >= ATTEMPTS_KEPT or all - before > ATTEMPTS_BYTES
      or now - string.match(entry[1], '^%d+') > ATTEMPTS_AGE_MS
  end
  local oldest = redis.call('XRANGE', name, '-', '+', 'COUNT', 1)
  if not goes(oldest[1]) then return 0 end
  oldest = redis.call('XRANGE', name, '-', '+', 'COUNT', SUCCESSES_BETWEEN + 1)
  if #oldest > SUCCESSES_BETWEEN and goes(oldest[#oldest]) then
    oldest = redis.call('XRANGE', name, '-', '+', 'COUNT', ATTEMPTS_DROPPED + 1)
  end
  local kept = 2
  while kept < #oldest and goes(oldest[kept]) do kept = kept + 1 end
  redis.call('XTRIM', name, 'MINID', oldest[kept][1])
  local _, before = head_of(oldest[1])
  local _, before_kept = head_of(oldest[kept])
  return before_kept - before
end

-- Adds an attempt and drops what is beyond a bound; returns by how many bytes all have grown, which may be less than 0.
local function add_attempt(name, now, outcome, events, facts, details, next_ms)
  local newest, n, before, at, seq = redis.call('XREVRANGE', name, '+', '-', 'COUNT', 1)[1], 1, 0, now, 0
  if newest then
    local last, last_before, last_size = head_of(newest)
    n, before = last + 1, last_before + last_size
    local last_ms, last_seq = string.match(newest[1], '^(%d+)-(%d+)$')
    -- Redis' clock may go back, and the ids of a stream may not.
    if tonumber(last_ms) >= now then at, seq = last_ms, last_seq + 1 end
  end
  local size = ATTEMPT_BYTES + #events + #facts + #details
  redis.call('XADD', name, string.format('%.0f-%.0f', at, seq),
    'head', string.format('%.0f %.0f %.0f %s %s', n, before, size, outcome, next_ms or '-'),
    'events', events, 'facts', facts, 'details', details)
  redis.call('PEXPIRE', name, ATTEMPTS_AGE_MS)
  if details == '' and n % SUCCESSES_BETWEEN > 0 then return size end
  return size - trim_attempts(name, now, n, before + size)
end
