#!lua flags=allow-oom
-- Records a failed attempt of the owner, schedules the next one or ends the channel, and releases the lease.
-- The channel ends when all attempts have failed for the expiry time. An attempt that comes later than planned by half
-- of the expiry restarts that time: the dispatchers were away, or a clock jumped, and the webhook did not fail.
-- A failure under an older configuration says nothing about the present one: the next attempt is due at once.
-- KEYS: channel, lease, queue, receipts, attempts
-- ARGV: owner, generation, config version, failed attempts, now in ms, next attempt in ms, expiry in ms,
--       attempt, attempt if it was the last, attempts kept, their TTL in ms
-- Reply: {'retry'} | {'config_changed'} | {'ended', notifications lost} | {'not_owner'}
--include receipts
--include end_channel
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return {'not_owner'} end
local channel = redis.call('HMGET', KEYS[1], 'generation', 'config_version', 'failing_since_ms', 'next_attempt_ms')
if channel[1] ~= ARGV[2] then return {'not_owner'} end

local now, expiry = tonumber(ARGV[5]), tonumber(ARGV[7])
local since = tonumber(channel[3] or now)
if channel[4] and now - tonumber(channel[4]) > expiry / 2 then since = now end
local status, attempt = 'retry', ARGV[8]
if channel[2] ~= ARGV[3] then
  status = 'config_changed'
elseif now - since >= expiry then
  status, attempt = 'ended', ARGV[9]
end
redis.call('LPUSH', KEYS[5], attempt)
redis.call('LTRIM', KEYS[5], 0, ARGV[10] - 1)
redis.call('PEXPIRE', KEYS[5], ARGV[11])
redis.call('DEL', KEYS[2])
if status == 'ended' then return {status, end_channel(KEYS[1], KEYS[2], KEYS[3], KEYS[4], 'channel-expired')} end
if status == 'retry' then
  redis.call('HSET', KEYS[1], 'failed_attempts', ARGV[4], 'failing_since_ms', since, 'next_attempt_ms', ARGV[6])
end
return {status}
