#!lua flags=allow-oom
-- Ends a webhook channel that nothing was queued for since long, with its queue and its lease.
-- KEYS: channel, lease, queue, receipts     ARGV: generation, now in ms, idle expiry in ms
-- Returns {'expired', notifications lost} | {'kept'} | {'absent'}
--include receipts
local channel = redis.call('HMGET', KEYS[1], 'generation', 'created_at_ms')
if channel[1] ~= ARGV[1] then return {'absent'} end
local since = tonumber(channel[2])
if redis.call('EXISTS', KEYS[3]) == 1 then
  local told = redis.call('XINFO', 'STREAM', KEYS[3])
  for i = 1, #told, 2 do
    if told[i] == 'last-generated-id' then
      since = math.max(since, tonumber(string.match(told[i + 1], '^%d+')))
    end
  end
end
if tonumber(ARGV[2]) - since < tonumber(ARGV[3]) then return {'kept'} end
local lost = redis.call('XLEN', KEYS[3])
tell(KEYS[4], '-', '+', 'dropped', 'channel-expired')
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
return {'expired', lost}
