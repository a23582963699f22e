#!lua flags=allow-oom
-- Records a failed attempt of the owner, schedules the next one or ends the channel, and releases the lease.
-- The channel ends when all attempts have failed for the expiry time. An attempt that comes later than planned by half
-- of the expiry restarts that time: the dispatchers were away, or a clock jumped, and the webhook did not fail.
-- A failure under an older configuration says nothing about the present one: the next attempt is due at once.
-- KEYS: channel, queue, receipts, attempts
-- ARGV: owner, generation, config version, failed attempts, now in ms, next attempt in ms, expiry in ms,
--       attempt, attempt if it was the last, attempts kept, their TTL in ms
-- Reply: {'retry'} | {'config_changed'} | {'ended', notifications lost} | {'not_owner'}
-- Touches at most: 1 attempt, or the whole queue and 10,000 receipts when the channel ends.
--include receipts
--include end_channel
local owner, generation, config_version, failing_since_ms, next_attempt_ms = unpack(redis.call('HMGET', KEYS[1],
  'owner', 'generation', 'config_version', 'failing_since_ms', 'next_attempt_ms'))
if owner ~= ARGV[1] or generation ~= ARGV[2] then return {'not_owner'} end

local now, expiry = tonumber(ARGV[5]), tonumber(ARGV[7])
local since = tonumber(failing_since_ms or now)
if next_attempt_ms and now - tonumber(next_attempt_ms) > expiry / 2 then since = now end
local status, attempt = 'retry', ARGV[8]
if config_version ~= ARGV[3] then
  status = 'config_changed'
elseif now - since >= expiry then
  status, attempt = 'ended', ARGV[9]
end
redis.call('LPUSH', KEYS[4], attempt)
redis.call('LTRIM', KEYS[4], 0, ARGV[10] - 1)
redis.call('PEXPIRE', KEYS[4], ARGV[11])
if status == 'ended' then return {status, end_channel(KEYS[1], KEYS[2], KEYS[3], 'channel-expired')} end
redis.call('HDEL', KEYS[1], 'owner')
if status == 'retry' then
  redis.call('HSET', KEYS[1], 'failed_attempts', ARGV[4], 'failing_since_ms', since, 'next_attempt_ms', ARGV[6])
end
return {status}
