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
local TTL_STEP_MS = 60 * 60 * 1000

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
  local oldest = redis.call('XRANGE', name, '-', '+', 'COUNT', SUCCESSES_BETWEEN + 1)
  if not goes(oldest[1]) then return 0 end
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

-- Redis' time makes the id, which saves a command. It never goes back, as its clock may.
local function new_id() return '*' end

-- Adds an attempt and drops what is beyond a bound. `known` is the field `attempts` of the channel, `<number> <bytes> <ms>`
-- of the last attempt, which saves a read. Without it the last one is read: the channel is new, or an older release
-- was its last owner.
-- Returns by how many bytes all have grown, which may be less than 0, the field as it is now, and the time in ms.
local function add_attempt(name, known, outcome, events, facts, details, next_ms)
  local n, before, last_ms = string.match(known or '', '^(%d+) (%d+) (%d+)$')
  if not n then
    local newest = redis.call('XREVRANGE', name, '+', '-', 'COUNT', 1)[1]
    if newest then
      local last, last_before, last_size = head_of(newest)
      n, before = last, last_before + last_size
    end
  end
  n, before = (n or 0) + 1, tonumber(before or 0)
  local size = ATTEMPT_BYTES + #events + #facts + #details
  local id = redis.call('XADD', name, new_id(name),
    'head', string.format('%.0f %.0f %.0f %s %s', n, before, size, outcome, next_ms or '-'),
    'events', events, 'facts', facts, 'details', details)
  local now = tonumber(string.match(id, '^%d+'))
  -- Its TTL is longer than an attempt is kept by as much.
  if math.floor(now / TTL_STEP_MS) ~= math.floor((last_ms or 0) / TTL_STEP_MS) then
    redis.call('PEXPIRE', name, ATTEMPTS_AGE_MS + TTL_STEP_MS)
  end
  known = string.format('%.0f %.0f %.0f', n, before + size, now)
  if details == '' and n % SUCCESSES_BETWEEN > 0 then return size, known, now end
  return size - trim_attempts(name, now, n, before + size), known, now
end
