#!lua flags=allow-oom
-- Records a failed attempt of the owner, schedules the next one or ends the channel, and releases the lease.
-- A native webhook never ends so. It is disabled when its receiver is gone, or when all attempts have failed for its own
-- time: its queue collects until it is enabled again. What has failed for its own time since its first failed attempt is
-- dropped as exhausted. Both write their notice in this step: a dispatcher may die before it has published it.
-- The channel ends when all attempts have failed for the expiry time: its own, if it has one (0: never). An attempt that comes later than planned by half
-- of the expiry restarts that time: the dispatchers were away, or a clock jumped, and the webhook did not fail. A native
-- one's times leave out only how late it was: one that is always late has an end too.
-- A failure under an older configuration says nothing about the present one: the next attempt is due at once.
-- Writes in the same step what the attempt has taught about the size of batches (batch_limits.py). A lower limit ends
-- the batch: the next one has its front. Drops a single notification that was refused too often: nothing behind it would
-- ever be sent. That is no success: the webhook goes on failing.
-- KEYS: channel, queue, receipts, attempts
-- ARGV: owner, generation, config version, failed attempts, backoff in ms, expiry in ms, entry to drop or '', new limit of
--       bytes or '', new limit of the number or '', batch that timed out or '', entry refused alone or '', how often, and
--       of the attempt: outcome, event ids, facts, details;
--       of a native webhook also: '1' when its receiver is gone or '', time until it gives a batch up, time until it is
--       disabled, backoff after a batch was given up (ms), first entry of the batch, last one, the first behind it,
--       the JSON of the notice when it is given up or '', and how long the attempt took (ms)
-- Reply: {'retry' or 'dropped' or 'config_changed' or 'ended' or 'not_owner', the time of the next attempt in ms or the
--         notifications lost or 0, by how many bytes the attempts have grown}
--      | {'exhausted', the time of the next attempt in ms, bytes, notifications dropped} | {'disabled', the reason, bytes}
-- Touches at most: 384 entries, or 128 and their receipts; 18 attempts, 20 fields, and the names of the channel.
--include attempts
--include now
--include end_channel
--include receipts
--include trim_front
--include silence
--include notices
local LOT = 460
local BODY_LIMIT_TTL_MS = 24 * 60 * 60 * 1000
local GROWS_AGAIN_MS = 5 * 60 * 1000

-- Whether a batch is still what the queue begins with. After a crash of Redis there may be others in its place, which were
-- never sent, and before it some that were acked.
local function is_front(queue, first, last)
  local front = redis.call('XRANGE', queue, '-', '+', 'COUNT', 1)[1]
  return front and front[1] == first and #redis.call('XRANGE', queue, last, last) == 1
end

local owner, generation, config_version, failing_since_ms, next_attempt_ms, grows_from,
  own_expiry, head, limits, has_receipts, known = unpack(redis.call('HMGET', KEYS[1], 'owner', 'generation', 'config_version',
    'failing_since_ms', 'next_attempt_ms', 'grows_from_ms', 'idle_expiry_ms', 'head', 'limits', 'receipts',
    'attempts'))
if owner ~= ARGV[1] or generation ~= ARGV[2] then return {'not_owner', 0, 0} end

local now, expiry = now_ms(), tonumber(own_expiry or ARGV[6])
if own_expiry == '0' then expiry = math.huge end
local gone, give_up_ms, disable_ms, backoff_after_ms, first, last, behind, notice, took_ms = unpack(ARGV, 17)
local is_native = gone ~= nil
if is_native then expiry = tonumber(disable_ms) end
local next_ms = string.format('%.0f', now + tonumber(ARGV[5]))
local since = tonumber(failing_since_ms or now)
-- From its plan to the begin of a native webhook's attempt: the attempt itself may last longer than the times that it has.
local late_ms = next_attempt_ms and now - tonumber(next_attempt_ms) - (is_native and tonumber(took_ms) or 0) or 0
if late_ms > expiry / 2 then since = is_native and math.min(now, since + late_ms) or now end
local status = 'retry'
if (config_version or '') ~= ARGV[3] then
  status, next_ms = 'config_changed', string.format('%.0f', now)
elseif now - since >= expiry then
  status = is_native and 'disabled' or 'ended'
end
local head_since = now
if is_native and status == 'retry' then
  local head_entry, since_ms = string.match(head or '', '^(%S+) (%d+)$')
  if head_entry == first then
    head_since = tonumber(since_ms)
    if late_ms > tonumber(give_up_ms) / 2 then head_since = math.min(now, head_since + late_ms) end
  end
  if gone == '1' then
    status = 'disabled'
  elseif now - head_since >= tonumber(give_up_ms) and is_front(KEYS[2], first, last) then
    status, next_ms = 'exhausted', string.format('%.0f', now + tonumber(backoff_after_ms))
  end
end
local has_next = status ~= 'ended' and status ~= 'disabled'
local grown
grown, known = add_attempt(KEYS[4], known, ARGV[13], ARGV[14], ARGV[15], ARGV[16], has_next and next_ms)
if status == 'ended' then return {status, end_channel(KEYS[1], KEYS[2], KEYS[3], 'channel-expired'), grown} end
redis.call('HSET', KEYS[1], 'attempts', known)
redis.call('HDEL', KEYS[1], 'owner', 'timed_out')
if status == 'config_changed' then return {status, 0, grown} end
if status == 'disabled' then
  local reason = gone == '1' and 'gone' or 'failed-for-too-long'
  redis.call('HSET', KEYS[1], 'failed_attempts', ARGV[4], 'failing_since_ms', since, 'disabled', reason,
    'disabled_since_ms', now, 'trouble', 1)
  redis.call('HDEL', KEYS[1], 'next_attempt_ms')
  set_silent(KEYS[1], limits, true)
  add_notice(KEYS[1], 'disabled', '{"reason":"' .. reason .. '"}')
  return {status, reason, grown}
end
if status == 'exhausted' then
  -- The next one has not failed yet: its attempts begin anew, as does its time.
  redis.call('HSET', KEYS[1], 'failed_attempts', 0, 'failing_since_ms', since, 'next_attempt_ms', next_ms)
  redis.call('HDEL', KEYS[1], 'head', 'batch_until', 'refused_entry', 'refused_times')
  local tracked = has_receipts and #redis.call('XRANGE', KEYS[3], '-', last, 'COUNT', RECEIPTS_LOT) or 0
  local dropped = trim_front(KEYS[2], behind, LOT - 2 * tracked)
  redis.call('HINCRBY', KEYS[1], 'dropped', dropped)
  if tracked > 0 then mark_receipts(KEYS[1], KEYS[3], '-', last, 'dropped', 'exhausted') end
  if notice ~= '' and dropped > 0 then
    redis.call('HSET', KEYS[1], 'trouble', 1)
    add_notice(KEYS[1], 'exhausted', notice)
  end
  return {status, next_ms, grown, dropped}
end
redis.call('HSET', KEYS[1], 'failed_attempts', ARGV[4], 'failing_since_ms', since, 'next_attempt_ms', next_ms)
if is_native then redis.call('HSET', KEYS[1], 'head', first .. string.format(' %.0f', head_since)) end

local drop, body_limit, batch_limit, timed_out, refused_entry, refused_times = unpack(ARGV, 7)
if body_limit ~= '' then
  redis.call('HSET', KEYS[1], 'body_limit_bytes', body_limit, 'body_limit_until_ms',
    string.format('%.0f', now + BODY_LIMIT_TTL_MS))
end
if batch_limit ~= '' then
  redis.call('HSET', KEYS[1], 'batch_limit', batch_limit)
  -- What it had grown to is too much: trying that after each success would cost two time-outs each time.
  if grows_from == '0' then redis.call('HSET', KEYS[1], 'grows_from_ms', string.format('%.0f', now + GROWS_AGAIN_MS)) end
end
if body_limit ~= '' or batch_limit ~= '' then redis.call('HDEL', KEYS[1], 'batch_until') end
if timed_out ~= '' then redis.call('HSET', KEYS[1], 'timed_out', timed_out) end
if refused_entry ~= '' then
  redis.call('HSET', KEYS[1], 'refused_entry', refused_entry, 'refused_times', refused_times)
end
if drop ~= '' and redis.call('XDEL', KEYS[2], drop) == 1 then
  status = 'dropped'
  redis.call('HINCRBY', KEYS[1], 'dropped', 1)
  mark_receipts(KEYS[1], KEYS[3], drop, drop, 'dropped', 'too-long-for-webhook')
  if is_native and notice ~= '' then
    redis.call('HSET', KEYS[1], 'trouble', 1)
    add_notice(KEYS[1], 'exhausted', notice)
  end
end
return {status, next_ms, grown}
