#!lua flags=allow-oom
-- Records a failed attempt of one entry of a native webhook that has several requests at once, for the owner, and plans
-- its retry. The others go on: the owner keeps the lease. The entry is dropped as exhausted when its attempts have failed
-- for its own time, and at once when it was refused too often for its size. The webhook is disabled when its receiver is
-- gone, or when all attempts have failed for its own time. Both are noted for the account in this step. Either time
-- leaves out how late an attempt began that was late by half of it: the dispatchers were away.
-- A failure under an older configuration says nothing about the present one: the entry is due at once.
-- KEYS: channel, queue, receipts, attempts, taken
-- ARGV: owner, generation, config version, mark of the entry, failed attempts of the entry, backoff in ms, refusals of the
--       entry for its size, '1' to drop it for that or '', '1' when the receiver is gone or '', time until it is given up,
--       time until the webhook is disabled, for how long the receiver wants no request or '' (ms), how many failed attempts
--       in a row say that it is down, and for how long then no new entry is taken (ms), the JSON of the notice when it is
--       given up or '', how long the attempt took in ms, and of the attempt: outcome, event ids, facts, details
-- Reply: {'retry' or 'dropped' or 'exhausted', the time of the next attempt in ms, bytes by which the attempts have grown,
--         notifications dropped} | {'config_changed', 0, bytes, 0} | {'disabled', the reason, bytes, 0}
--      | {'not_owner', 0, 0, 0}
-- Touches at most: 1 entry with its receipt, 2 marks and 18 attempts.
--include attempts
--include now
--include receipts
--include remove_entry
--include silence
--include notices
--include taken
local owner, generation, config_version, failing_since_ms, planned_ms, limits, has_receipts, asked_ms, disabled, known =
  unpack(redis.call('HMGET', KEYS[1], 'owner', 'generation', 'config_version', 'failing_since_ms', 'planned_ms', 'limits',
    'receipts', 'asked_ms', 'disabled', 'attempts'))
if owner ~= ARGV[1] or generation ~= ARGV[2] then return {'not_owner', 0, 0, 0} end
local mark, failed_attempts, refusals, gone, notice = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[7]), ARGV[9], ARGV[15]
local give_up_ms, disable_ms = tonumber(ARGV[10]), tonumber(ARGV[11])
local now = now_ms()
local next_ms = now + tonumber(ARGV[6])
local entry_id, first_ms, own_planned_ms = string.match(mark, '^(%S+) %d+ (%d+) %d+ (%d+)$')
first_ms, own_planned_ms = tonumber(first_ms), tonumber(own_planned_ms)
local begun_ms = now - tonumber(ARGV[16])
-- What began at `from`, without the time for which an attempt was late.
local function without_absence(from, planned, limit)
  local late_ms = begun_ms - planned
  return planned > 0 and late_ms > limit / 2 and math.min(now, from + late_ms) or from
end
first_ms = without_absence(first_ms > 0 and first_ms or now, own_planned_ms, give_up_ms)
local since = without_absence(tonumber(failing_since_ms or now), tonumber(planned_ms or 0), disable_ms)

local status = 'retry'
if (config_version or '') ~= ARGV[3] then
  status = 'config_changed'
elseif gone == '1' or now - since >= disable_ms then
  status = 'disabled'
elseif now - first_ms >= give_up_ms then
  status = 'exhausted'
elseif ARGV[8] == '1' then
  status = 'dropped'
end
local ends = status == 'exhausted' or status == 'dropped'
if status == 'config_changed' or status == 'disabled' then next_ms = now end
local next_text = string.format('%.0f', next_ms)
local has_next = status == 'retry' or status == 'config_changed'
local grown
grown, known = add_attempt(KEYS[4], known, ARGV[17], ARGV[18], ARGV[19], ARGV[20], has_next and next_text)
redis.call('HSET', KEYS[1], 'attempts', known)
redis.call('ZREM', KEYS[5], mark)
if status ~= 'config_changed' then mark = mark_of(entry_id, failed_attempts, first_ms, refusals, next_ms) end
-- What was dropped meanwhile needs no mark.
if not ends and #redis.call('XRANGE', KEYS[2], entry_id, entry_id) > 0 then
  redis.call('ZADD', KEYS[5], next_text, mark)
end
if status == 'config_changed' then return {status, 0, grown, 0} end
redis.call('HSET', KEYS[1], 'failing_since_ms', since, 'planned_ms', next_text)
local in_a_row = redis.call('HINCRBY', KEYS[1], 'failed_attempts', 1)
if in_a_row >= tonumber(ARGV[13]) then
  redis.call('HSET', KEYS[1], 'hold_ms', string.format('%.0f', now + tonumber(ARGV[14])))
end
if status == 'disabled' then
  local reason = gone == '1' and 'gone' or 'failed-for-too-long'
  -- Other requests were under way too, and may have said the same.
  if not disabled then
    redis.call('HSET', KEYS[1], 'disabled', reason, 'disabled_since_ms', now, 'trouble', 1)
    redis.call('HDEL', KEYS[1], 'next_attempt_ms')
    set_silent(KEYS[1], limits, true)
    add_notice(KEYS[1], 'disabled', '{"reason":"' .. reason .. '"}')
  end
  return {disabled and 'retry' or status, disabled and next_text or reason, grown, 0}
end
if ARGV[12] ~= '' then
  local until_ms = math.max(now + tonumber(ARGV[12]), tonumber(asked_ms or 0))
  redis.call('HSET', KEYS[1], 'asked_ms', string.format('%.0f', until_ms))
end
local dropped = 0
if ends and remove_entry(KEYS[1], KEYS[2], entry_id) then
  dropped = 1
  redis.call('HINCRBY', KEYS[1], 'dropped', 1)
  if has_receipts then
    local reason = status == 'dropped' and 'too-long-for-webhook' or status
    mark_receipts(KEYS[1], KEYS[3], entry_id, entry_id, 'dropped', reason)
  end
  if notice ~= '' then
    redis.call('HSET', KEYS[1], 'trouble', 1)
    add_notice(KEYS[1], 'exhausted', notice)
  end
end
return {status, next_text, grown, dropped}
