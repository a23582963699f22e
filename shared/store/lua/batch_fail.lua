#!lua flags=allow-oom
-- Records a failed attempt of the owner, schedules the next one or ends the channel, and releases the lease.
-- The channel ends when all attempts have failed for the expiry time. An attempt that comes later than planned by half
-- of the expiry restarts that time: the dispatchers were away, or a clock jumped, and the webhook did not fail.
-- A failure under an older configuration says nothing about the present one: the next attempt is due at once.
-- KEYS: channel, queue, receipts, attempts
-- ARGV: owner, generation, config version, failed attempts, backoff in ms, expiry in ms, attempt (JSON that ends with
--       a next_attempt_ms of null), attempts kept, their TTL in ms
-- Reply: {'retry', the time of the next attempt in ms} | {'config_changed'} | {'ended', notifications lost} | {'not_owner'}
-- Touches at most: 2 attempts, 6 fields, and the names of the channel when it ends.
--include now
--include end_channel
local owner, generation, config_version, failing_since_ms, next_attempt_ms = unpack(redis.call('HMGET', KEYS[1],
  'owner', 'generation', 'config_version', 'failing_since_ms', 'next_attempt_ms'))
if owner ~= ARGV[1] or generation ~= ARGV[2] then return {'not_owner'} end

local now, expiry = now_ms(), tonumber(ARGV[6])
local next_ms = string.format('%.0f', now + tonumber(ARGV[5]))
local since = tonumber(failing_since_ms or now)
if next_attempt_ms and now - tonumber(next_attempt_ms) > expiry / 2 then since = now end
local status = 'retry'
if config_version ~= ARGV[3] then
  status = 'config_changed'
elseif now - since >= expiry then
  status = 'ended'
end
local attempt = ARGV[7]
if status ~= 'ended' then attempt = string.gsub(attempt, 'null}$', next_ms .. '}') end
redis.call('LPUSH', KEYS[4], attempt)
redis.call('LTRIM', KEYS[4], 0, ARGV[8] - 1)
redis.call('PEXPIRE', KEYS[4], ARGV[9])
if status == 'ended' then return {status, end_channel(KEYS[1], KEYS[2], KEYS[3], 'channel-expired')} end
redis.call('HDEL', KEYS[1], 'owner')
if status ~= 'retry' then return {status} end
redis.call('HSET', KEYS[1], 'failed_attempts', ARGV[4], 'failing_since_ms', since, 'next_attempt_ms', next_ms)
return {status, next_ms}
