#!lua flags=allow-oom
-- Notes that a webhook did not take its batch, for the owner only: when it is tried again, or that it ends, since
-- every try has failed for too long. Gives the lease back. What failed under an older setup says nothing about
-- the present one, which is tried at once. While nobody tried, dispatchers were away or a clock has jumped, it did
-- not fail: a try that comes later than by half of the expiry begins the time anew.
-- KEYS: channel, lease, queue, receipts, deliveries
-- ARGV: owner, generation, setup, failed tries, now in ms, next try in ms, expiry in ms,
--       delivery, delivery if it was the last, how many are noted, their TTL in ms
-- Returns {'later'} | {'changed'} | {'ended', notifications lost} | {'stale'}
--include receipts
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return {'stale'} end
local channel = redis.call('HMGET', KEYS[1], 'generation', 'setup', 'failing_since_ms', 'next_attempt_ms')
if channel[1] ~= ARGV[2] then return {'stale'} end

local since = tonumber(channel[3] or ARGV[5])
if channel[4] and tonumber(ARGV[5]) - tonumber(channel[4]) > tonumber(ARGV[7]) / 2 then since = tonumber(ARGV[5]) end
local word, note = 'later', ARGV[8]
if channel[2] ~= ARGV[3] then
  word = 'changed'
elseif tonumber(ARGV[5]) - since >= tonumber(ARGV[7]) then
  word, note = 'ended', ARGV[9]
end
redis.call('LPUSH', KEYS[5], note)
redis.call('LTRIM', KEYS[5], 0, ARGV[10] - 1)
redis.call('PEXPIRE', KEYS[5], ARGV[11])
redis.call('DEL', KEYS[2])
if word == 'ended' then
  local lost = redis.call('XLEN', KEYS[3])
  tell(KEYS[4], '-', '+', 'dropped', 'channel-expired')
  redis.call('DEL', KEYS[1], KEYS[3], KEYS[4])
  return {'ended', lost}
end
if word == 'later' then
  redis.call('HSET', KEYS[1], 'failed_attempts', ARGV[4], 'failing_since_ms', since, 'next_attempt_ms', ARGV[6])
end
return {word}
