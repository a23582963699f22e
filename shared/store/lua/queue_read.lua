#!lua flags=allow-oom
-- The front of a queue after a given place, for the owner only: the look that every wakeup asks for.
-- Tells a socket that is no longer the owner why. After a crash of Redis the claim may be lost: if nobody, or
-- the owner that it had replaced, stands there, nobody else holds it now, and it is written again.
-- What is too old is dropped first, and counted.
-- KEYS: key, channel, lease, queue, receipts
-- ARGV: owner, previous, generation, after, count, bytes, 1 if Redis may have lost the claim, else 0,
--       the first place that is not too old
-- Returns {'held', more (0 or 1), dropped, serialization or '', entry...}
--       | {'rewound'} | {'revoked'} | {'deleted'} | {'taken'}
--include receipts
if redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
local channel = redis.call('HMGET', KEYS[2], 'generation', 'serialization')
if channel[1] ~= ARGV[3] then return {'deleted'} end
local owner = redis.call('GET', KEYS[3])
if owner ~= ARGV[1] then
  if ARGV[7] ~= '1' or (owner and owner ~= ARGV[2]) then return {'taken'} end
  redis.call('SET', KEYS[3], ARGV[1])
end
local dropped = redis.call('XTRIM', KEYS[4], 'MINID', ARGV[8])
if dropped > 0 then
  redis.call('HINCRBY', KEYS[2], 'dropped', dropped)
  tell(KEYS[5], '-', '(' .. ARGV[8], 'dropped', 'too-old')
end
local answer = {'held', 0, dropped, channel[2] or ''}
-- What was sent last is the tail, or acked, unless Redis lost it: then what comes next may stand before it.
local tail = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
if not tail or tail[1] == ARGV[4] then return answer end
local after, left, bytes = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
-- Read in growing steps: entries may be large, and only so many bytes are wanted.
local step = 4
while left > 0 do
  step = math.min(left, step * 2)
  local entries = redis.call('XRANGE', KEYS[4], '(' .. after, '+', 'COUNT', step)
  for _, entry in ipairs(entries) do
    bytes = bytes - #entry[2][6]
    if bytes < 0 and #answer > 4 then
      answer[2] = 1
      return answer
    end
    answer[#answer + 1] = entry
    after = entry[1]
  end
  if #entries < step then
    if #answer == 4 then return {'rewound'} end
    return answer
  end
  left = left - step
end
if #redis.call('XRANGE', KEYS[4], '(' .. after, '+', 'COUNT', 1) > 0 then answer[2] = 1 end
return answer
