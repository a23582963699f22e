--include now
-- Deletes a channel with its owner, queue, receipts and replay; returns how many notifications were pending.
-- The hash goes with the queue: what it knows of the queue must not outlive it. The record of a native channel goes too,
-- and its attempts, which no request could read any more; an API key's stay.
-- UNLINK: Redis frees a large queue beside its work. For its receipts the script records why and when the channel ended
-- (receipts.py reads it): they may be too many to be marked in one step.
local ENDED_TTL_MS = 60 * 60 * 1000
local MOST_ENDED = 64

local function end_channel(channel, queue, receipts, reason)
  local lost = redis.call('XLEN', queue)
  local generation, has_receipts, kind = unpack(redis.call('HMGET', channel, 'generation', 'receipts', 'kind'))
  if has_receipts then
    local ended = string.gsub(channel, 'channel$', 'ended')
    -- A channel that is made and deleted over and over must not collect a field for each time.
    if redis.call('HLEN', ended) >= MOST_ENDED then redis.call('UNLINK', ended) end
    redis.call('HSET', ended, generation, string.format('%.0f %s', now_ms(), reason))
    redis.call('PEXPIRE', ended, ENDED_TTL_MS)
  end
  local record = string.gsub(channel, 'channel$', 'key')
  if redis.call('HEXISTS', record, 'native') == 1 then
    redis.call('UNLINK', record)
    if kind == 'webhook' then redis.call('UNLINK', (string.gsub(channel, 'channel$', 'attempts'))) end
  end
  redis.call('UNLINK', channel, queue, receipts, (string.gsub(channel, 'channel$', 'replay')),
    (string.gsub(channel, 'channel$', 'taken')))
  return lost
end
