#!lua flags=allow-oom
-- Reads the next batch of a webhook's queue, with its configuration, for the owner.
-- The channel's record keeps where a batch ends: a retry sends the same notifications, and newer ones wait.
-- Drops and counts what is too old first. An empty queue ends the webhook's failing state.
-- An API key that has expired receives nothing.
-- KEYS: key, channel, lease, queue, receipts
-- ARGV: owner, generation, count, bytes, the first entry id that is not too old, now in ms
-- Reply: {'taken', config version, url, headers, serialization, signing secret, failed attempts, dropped, entry...}
--      | {'empty', dropped} | {'not_due', dropped} | {'revoked'} | {'deleted'} | {'taken_over'}
--include receipts
--include drop_expired
--include read_entries
if redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
local channel = redis.call('HMGET', KEYS[2], 'generation', 'config_version', 'url', 'headers', 'serialization',
  'failed_attempts', 'next_attempt_ms', 'batch_until')
if channel[1] ~= ARGV[2] then return {'deleted'} end
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return {'taken_over'} end

local dropped = drop_expired(KEYS[2], KEYS[4], KEYS[5], ARGV[5])
if redis.call('XLEN', KEYS[4]) == 0 then
  redis.call('HDEL', KEYS[2], 'failed_attempts', 'failing_since_ms', 'next_attempt_ms', 'batch_until')
  return {'empty', dropped}
end
local key_expires, now = redis.call('HGET', KEYS[1], 'expires_at_ms'), tonumber(ARGV[6])
if key_expires and tonumber(key_expires) <= now then return {'not_due', dropped} end
if channel[7] and tonumber(channel[7]) > now then return {'not_due', dropped} end

local reply = {'taken', channel[2] or '', channel[3], channel[4], channel[5] or '',
  redis.call('HGET', KEYS[1], 'signing_secret') or '', channel[6] or '0', dropped}
local head, batch_until = #reply, channel[8]
-- A message holds at most max_chunk_size notifications: more would be read for nothing.
local count = tonumber(ARGV[3])
if reply[5] ~= '' then count = math.min(count, cjson.decode(reply[5]).max_chunk_size) end
if batch_until then
  local again = redis.call('XRANGE', KEYS[4], '-', batch_until, 'COUNT', count)
  for _, entry in ipairs(again) do reply[#reply + 1] = entry end
  if #reply > head then return reply end
end
read_entries(reply, KEYS[4], '-', count, tonumber(ARGV[4]))
redis.call('HSET', KEYS[2], 'batch_until', reply[#reply][1])
return reply
