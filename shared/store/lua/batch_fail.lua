#!lua flags=allow-oom
-- Records a failed attempt of the owner, schedules the next one or ends the channel, and releases the lease.
-- The channel ends when all attempts have failed for the expiry time: its own, if it has one (0: never). An attempt that comes later than planned by half
-- of the expiry restarts that time: the dispatchers were away, or a clock jumped, and the webhook did not fail.
-- A failure under an older configuration says nothing about the present one: the next attempt is due at once.
-- Writes in the same step what the attempt has taught about the size of batches (batch_limits.py). A lower limit ends
-- the batch: the next one has its front. Drops a single notification that was refused too often: nothing behind it would
-- ever be sent. That is no success: the webhook goes on failing.
-- KEYS: channel, queue, receipts, attempts
-- ARGV: owner, generation, config version, failed attempts, backoff in ms, expiry in ms, entry to drop or '', new limit of
--       bytes or '', new limit of the number or '', batch that timed out or '', entry refused alone or '', how often, and
--       of the attempt: outcome, event ids, facts, details
-- Reply: {'retry' or 'dropped' or 'config_changed' or 'ended' or 'not_owner', the time of the next attempt in ms or the
--         notifications lost or 0, by how many bytes the attempts have grown}
-- Touches at most: 18 attempts, 16 fields, 1 entry, 1 receipt, and the names of the channel when it ends.
--include attempts
--include now
--include end_channel
--include receipts
local BODY_LIMIT_TTL_MS = 24 * 60 * 60 * 1000
local GROWS_AGAIN_MS = 5 * 60 * 1000
local owner, generation, config_version, failing_since_ms, next_attempt_ms, grows_from,
  own_expiry = unpack(redis.call('HMGET', KEYS[1], 'owner', 'generation', 'config_version', 'failing_since_ms',
    'next_attempt_ms', 'grows_from_ms', 'idle_expiry_ms'))
if owner ~= ARGV[1] or generation ~= ARGV[2] then return {'not_owner', 0, 0} end

local now, expiry = now_ms(), tonumber(own_expiry or ARGV[6])
if own_expiry == '0' then expiry = math.huge end
local next_ms = string.format('%.0f', now + tonumber(ARGV[5]))
local since = tonumber(failing_since_ms or now)
if next_attempt_ms and now - tonumber(next_attempt_ms) > expiry / 2 then since = now end
local status = 'retry'
if config_version ~= ARGV[3] then
  status = 'config_changed'
elseif now - since >= expiry then
  status = 'ended'
end
local grown = add_attempt(KEYS[4], now, ARGV[13], ARGV[14], ARGV[15], ARGV[16], status ~= 'ended' and next_ms)
if status == 'ended' then return {status, end_channel(KEYS[1], KEYS[2], KEYS[3], 'channel-expired'), grown} end
redis.call('HDEL', KEYS[1], 'owner', 'timed_out')
if status ~= 'retry' then return {status, 0, grown} end
redis.call('HSET', KEYS[1], 'failed_attempts', ARGV[4], 'failing_since_ms', since, 'next_attempt_ms', next_ms)

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
end
return {status, next_ms, grown}
