#!lua flags=allow-oom
-- Reads the next batch of a webhook's queue, with its configuration, for the owner.
-- The channel's record keeps where a batch ends: a retry sends the same notifications, and newer ones wait.
-- Gives out nothing that is too old: it drops a lot of it instead, and the caller repeats the call.
-- An empty queue ends the webhook's failing state.
-- A batch keeps to what the receiver is known to take; the limit of bytes ends after a day.
-- An API key that has expired receives nothing, nor does a channel that is paused or disabled.
-- A native webhook also keeps to its policy: its batches, and its rate by Redis' clock, which holds across takeovers. A
-- request that is late may be followed by the next one sooner, by one interval at most: a second has two more requests
-- than the rate at most.
-- Gives out nothing of a webhook with several requests at once: entry_take.lua does.
-- KEYS: key, channel, queue, receipts
-- ARGV: owner, generation, count, bytes, lifetime in ms
-- Reply: {'taken', config version, url, headers, serialization, signing secrets, failed attempts, policy or '',
--         limit of bytes or '', limit of the number or '', batch that timed out or '', entry refused alone or '',
--         how often, '1' if an ack ends trouble or '', entry...} | {'paced', ms to wait}
--      | {'dropped', the number} | {'empty'} | {'not_due'} | {'parallel'} | {'revoked'} | {'deleted'} | {'taken_over'}
-- The signing secrets are those of now, newest first, separated by blanks.
-- Touches at most: 384 entries and 5 secrets, or 150 entries that are too old with their receipts.
--include now
--include entries
--include drop_expired
--include lots
--include own_limits
--include read_entries
--include signing_secrets
-- While receipts are tracked, a batch is so small that they are marked in the step that acks it.
local MOST_WITH_RECEIPTS = 128
local generation, owner, config_version, url, headers, serialization, failed_attempts, next_attempt_ms, batch_until, first,
  has_receipts, body_limit, body_limit_until, batch_limit, timed_out, refused_entry, refused_times, own_limits, paused,
  policy, disabled, rate_at, trouble, failing_since_ms, head_entry =
  unpack(redis.call('HMGET', KEYS[2], 'generation', 'owner', 'config_version', 'url', 'headers', 'serialization',
    'failed_attempts', 'next_attempt_ms', 'batch_until', 'first', 'receipts', 'body_limit_bytes', 'body_limit_until_ms',
    'batch_limit', 'timed_out', 'refused_entry', 'refused_times', 'limits', 'paused', 'policy',
    'disabled', 'rate_at_ms', 'trouble', 'failing_since_ms', 'head'))
if not generation and redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
if generation ~= ARGV[2] then return {'deleted'} end
if owner ~= ARGV[1] then return {'taken_over'} end
if paused or disabled then return {'not_due'} end
-- An ack has left it: no entry has this id.
if batch_until == '0-0' then batch_until = nil end

local now = now_ms()
local _, lifetime_ms = limits_of(own_limits, 0, tonumber(ARGV[5]))
local dropped = drop_expired(KEYS[2], KEYS[3], KEYS[4], has_receipts, first, lifetime_ms, now)
if dropped > 0 then return {'dropped', dropped} end
local function ended()
  if failed_attempts or failing_since_ms or next_attempt_ms or batch_until or timed_out or refused_entry or head_entry then
    redis.call('HDEL', KEYS[2], 'failed_attempts', 'failing_since_ms', 'next_attempt_ms', 'batch_until', 'timed_out',
      'refused_entry', 'refused_times', 'head')
  end
  return {'empty'}
end
-- Unless the queue is empty: then that is the reply, whatever else keeps the webhook.
local function kept(status, more)
  if redis.call('XLEN', KEYS[3]) == 0 then return ended() end
  return {status, more}
end
local key_ends_ms, native, secret_lines, secret, made_ms =
  unpack(redis.call('HMGET', KEYS[1], 'expires_at_ms', 'native', 'signing_secrets', 'signing_secret', 'created_at_ms'))
-- A native webhook of an older release has no policy, so the defaults: it is shown with them too.
if native and not policy then policy = '{}' end
if key_ends_ms and tonumber(key_ends_ms) <= now then return kept('not_due') end
if next_attempt_ms and tonumber(next_attempt_ms) > now then return kept('not_due') end

local wanted = policy and cjson.decode(policy)
if wanted and (tonumber(wanted.max_in_flight) or 1) > 1 then return kept('parallel') end
if wanted and type(wanted.rate_per_s) == 'number' and wanted.rate_per_s > 0 then
  local interval = 1000 / wanted.rate_per_s
  local at = tonumber(rate_at or 0)
  -- Further ahead it can only be after a clock was put back, or under a slower rate.
  if at > now and at <= now + interval + 1 then return kept('paced', math.ceil(at - now)) end
  if redis.call('XLEN', KEYS[3]) == 0 then return ended() end
  if at > now then at = now end
  redis.call('HSET', KEYS[2], 'rate_at_ms', string.format('%.3f', math.max(at, now - interval) + interval))
end

-- Only between two batches: a retry must not grow.
if body_limit and not batch_until and tonumber(body_limit_until or 0) <= now then
  redis.call('HDEL', KEYS[2], 'body_limit_bytes', 'body_limit_until_ms')
  body_limit = nil
end
local reply = {'taken', config_version or '', url, headers, serialization or '',
  signing_texts(KEYS[1], secret_lines, secret, made_ms, now),
  failed_attempts or '0', policy or '', body_limit or '', batch_limit or '', timed_out or '', refused_entry or '',
  refused_times or '0', trouble and '1' or ''}
local head = #reply
-- A message holds at most max_chunk_size notifications: more would be read for nothing.
local count = math.min(tonumber(ARGV[3]), READ_LOT)
if (serialization or '') ~= '' then count = math.min(count, cjson.decode(serialization).max_chunk_size) end
local bytes = tonumber(ARGV[4])
if wanted then
  -- Another release may have written the policy without one of them.
  count = math.min(count, wanted.format == 'cloudevents' and 1 or tonumber(wanted.max_batch) or 1)
  bytes = math.min(bytes, tonumber(wanted.max_body_bytes) or bytes)
end
if batch_limit then count = math.min(count, tonumber(batch_limit)) end
if batch_until then
  local again = redis.call('XRANGE', KEYS[3], '-', batch_until, 'COUNT', count)
  for _, entry in ipairs(again) do reply[#reply + 1] = entry end
  if #reply > head then return reply end
end
if has_receipts then count = math.min(count, MOST_WITH_RECEIPTS) end
read_entries(reply, KEYS[3], '-', count, math.min(bytes, tonumber(body_limit or bytes)))
if #reply == head then return ended() end
redis.call('HSET', KEYS[2], 'batch_until', reply[#reply][1])
return reply
