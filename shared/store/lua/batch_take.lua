#!lua flags=allow-oom
-- The front of a webhook's queue, for the owner only, and where it goes. What was taken once and not acked is
-- taken again with the same end, so that a retry has what the first try had; newcomers wait for the next.
-- What is too old is dropped first, and counted; with nothing left there is nothing that fails any more.
-- An API key that has expired receives nothing.
-- KEYS: key, channel, lease, queue, receipts
-- ARGV: owner, generation, count, bytes, the first place that is not too old, now in ms
-- Returns {'taken', setup, url, headers, serialization, signing secret, failed tries, dropped, entry...}
--       | {'nothing', dropped} | {'waits', dropped} | {'revoked'} | {'deleted'} | {'lost'}
--include receipts
if redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
local channel = redis.call('HMGET', KEYS[2], 'generation', 'setup', 'url', 'headers', 'serialization', 'failed_attempts',
  'next_attempt_ms', 'batch_until')
local expires = redis.call('HGET', KEYS[1], 'expires_at_ms')
if channel[1] ~= ARGV[2] then return {'deleted'} end
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return {'lost'} end

local dropped = redis.call('XTRIM', KEYS[4], 'MINID', ARGV[5])
if dropped > 0 then
  redis.call('HINCRBY', KEYS[2], 'dropped', dropped)
  tell(KEYS[5], '-', '(' .. ARGV[5], 'dropped', 'too-old')
end
if redis.call('XLEN', KEYS[4]) == 0 then
  redis.call('HDEL', KEYS[2], 'failed_attempts', 'failing_since_ms', 'next_attempt_ms', 'batch_until')
  return {'nothing', dropped}
end
if expires and tonumber(expires) <= tonumber(ARGV[6]) then return {'waits', dropped} end
if channel[7] and tonumber(channel[7]) > tonumber(ARGV[6]) then return {'waits', dropped} end

local answer = {'taken', channel[2] or '', channel[3], channel[4], channel[5] or '',
  redis.call('HGET', KEYS[1], 'signing_secret') or '', channel[6] or '0', dropped}
local around, until_ = #answer, channel[8]
-- No message takes more than its receiver wants; what it leaves would be read again for the next.
local most = tonumber(ARGV[3])
if answer[5] ~= '' then most = math.min(most, cjson.decode(answer[5]).max_chunk_size) end
if until_ then
  local again = redis.call('XRANGE', KEYS[4], '-', until_, 'COUNT', most)
  for _, entry in ipairs(again) do answer[#answer + 1] = entry end
  if #answer > around then return answer end
end
-- Read in growing steps: entries may be large, and only so many bytes are wanted.
local from, left, bytes, step = '-', most, tonumber(ARGV[4]), 4
while left > 0 do
  step = math.min(left, step * 2)
  local entries = redis.call('XRANGE', KEYS[4], from, '+', 'COUNT', step)
  for _, entry in ipairs(entries) do
    bytes = bytes - #entry[2][6]
    if bytes < 0 and #answer > around then
      left = 0
      break
    end
    answer[#answer + 1] = entry
    from = '(' .. entry[1]
  end
  if #entries < step then break end
  left = left - step
end
redis.call('HSET', KEYS[2], 'batch_until', answer[#answer][1])
return answer
