#!lua flags=allow-oom
-- Takes entries of a native webhook that has several requests at once, each for a request of its own, for the owner: those
-- whose retry is due, and then the next of the queue. Marks them in the same step (taken.lua): nothing is taken twice.
-- With ARGV[6] the owner has no request under way: what is marked so was left by an owner that died, and is due.
-- While as many attempts in a row have failed as there may be requests at once, the receiver seems to be down: then only
-- retries are taken, and after each pause one new entry.
-- Gives out nothing that is too old, nor to an API key that has expired, nor of a channel that is paused or disabled. Keeps
-- to the rate of the webhook as batch_take.lua does: with one, a call takes one entry.
-- KEYS: key, channel, queue, receipts, taken
-- ARGV: owner, generation, how many, how many of them may be retries, bytes, '1' without a request under way or '',
--       lifetime in ms
-- Reply: {'taken', config version, url, headers, signing secrets, failed attempts in a row, policy,
--         '1' if an ack ends trouble or '', {mark, entry id, values}...}
--      | {'waiting', the ms at which something is due or ''} | {'paced', ms to wait} | {'dropped', the number} | {'empty'}
--      | {'in_order'} when it has one request at a time | {'revoked'} | {'deleted'} | {'taken_over'}
-- Touches at most: 100 entries and 300 marks, or 150 entries that are too old with their receipts.
--include now
--include entries
--include drop_expired
--include own_limits
--include read_entries
--include signing_secrets
--include taken
local MOST_AT_ONCE = 100
local generation, owner, config_version, url, headers, policy, asked_ms, failed_attempts, first, has_receipts, own_limits,
  paused, disabled, rate_at, trouble, taken_until, hold_ms, hurry, anew_ms = unpack(redis.call('HMGET', KEYS[2],
    'generation', 'owner', 'config_version', 'url', 'headers', 'policy', 'asked_ms', 'failed_attempts', 'first', 'receipts',
    'limits', 'paused', 'disabled', 'rate_at_ms', 'trouble', 'taken_until', 'hold_ms', 'hurry', 'anew_ms'))
if not generation and redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
if generation ~= ARGV[2] then return {'deleted'} end
if owner ~= ARGV[1] then return {'taken_over'} end
local wanted, is_fresh = policy and cjson.decode(policy) or {}, ARGV[6] == '1'
local most = tonumber(wanted.max_in_flight) or 1
if most < 2 then
  if is_fresh then forget_taken(KEYS[2], KEYS[5]) end
  return {'in_order'}
end
if paused or disabled then return {'waiting', ''} end

local _, lifetime_ms = limits_of(own_limits, 0, tonumber(ARGV[7]))
local now = now_ms()
local dropped = drop_expired(KEYS[2], KEYS[3], KEYS[4], has_receipts, first, lifetime_ms, now)
if dropped > 0 then return {'dropped', dropped} end
if redis.call('XLEN', KEYS[3]) == 0 then
  forget_taken(KEYS[2], KEYS[5])
  -- The bound that acks in order have left is too low for what comes next.
  redis.call('HDEL', KEYS[2], 'failed_attempts', 'failing_since_ms', 'next_attempt_ms', 'first', 'first_total')
  return {'empty'}
end
local key_ends_ms, secret_lines, secret, made_ms =
  unpack(redis.call('HMGET', KEYS[1], 'expires_at_ms', 'signing_secrets', 'signing_secret', 'created_at_ms'))
if key_ends_ms and tonumber(key_ends_ms) <= now then return {'waiting', ''} end

local function ms_text(ms) return string.format('%.0f', ms) end
local function marks(from, to, count)
  return redis.call('ZRANGE', KEYS[5], from, to, 'BYSCORE', 'LIMIT', 0, count)
end
local function make_due(found)
  for _, mark in ipairs(found) do redis.call('ZADD', KEYS[5], now, mark) end
  return #found
end
if is_fresh then
  make_due(marks(UNDER_WAY, '+inf', MOST_AT_ONCE))
  -- From here on entries are removed from the middle, and each one counts: the bound has to be right.
  write_first(KEYS[2], first_entry(KEYS[3]))
end
if hurry and make_due(marks('(' .. ms_text(now), '(' .. UNDER_WAY, MOST_AT_ONCE)) < MOST_AT_ONCE then
  redis.call('HDEL', KEYS[2], 'hurry')
end
if asked_ms and tonumber(asked_ms) > now then
  redis.call('HSET', KEYS[2], 'next_attempt_ms', asked_ms)
  return {'waiting', asked_ms}
end
local rate = tonumber(wanted.rate_per_s) or 0
local rate_interval = rate > 0 and 1000 / rate
local at = math.max(tonumber(rate_at or 0), now - (rate_interval or 0))
if rate_interval and at > now then
  -- Further ahead it can only be after a clock was put back, or under a slower rate.
  if at <= now + rate_interval + 1 then return {'paced', math.ceil(at - now)} end
  at = now
end

local count, bytes = math.min(tonumber(ARGV[3]), MOST_AT_ONCE), tonumber(ARGV[5])
if rate_interval then count = math.min(count, 1) end
local found = {}
for _, mark in ipairs(marks('-inf', ms_text(now), math.min(count, tonumber(ARGV[4])))) do
  local entry_id, first_ms = string.match(mark, '^(%S+) %d+ (%d+)')
  local entry = redis.call('XRANGE', KEYS[3], entry_id, entry_id)[1]
  bytes = bytes - (entry and #entry[2][6] or 0)
  if bytes < 0 and #found > 0 then break end
  if not entry then
    -- It was dropped: it was too old, or its queue was full.
    redis.call('ZREM', KEYS[5], mark)
  else
    if tonumber(first_ms) > 0 and tonumber(first_ms) < tonumber(anew_ms or 0) then
      redis.call('ZREM', KEYS[5], mark)
      mark = mark_of(entry_id, 0, 0, 0, 0)
    end
    redis.call('ZADD', KEYS[5], UNDER_WAY, mark)
    found[#found + 1] = {mark, entry[1], entry[2]}
  end
end

local seems_down = tonumber(failed_attempts or 0) >= most
local room = seems_down and math.min(count - #found, 1) or count - #found
local is_held = seems_down and tonumber(hold_ms or 0) > now
if room > 0 and not is_held and (bytes > 0 or #found == 0) and redis.call('ZCARD', KEYS[5]) < MOST_TAKEN then
  local new = {}
  read_entries(new, KEYS[3], taken_until and '(' .. taken_until or '-', room, bytes)
  for _, entry in ipairs(new) do
    local mark = mark_of(entry[1], 0, 0, 0, 0)
    redis.call('ZADD', KEYS[5], UNDER_WAY, mark)
    found[#found + 1] = {mark, entry[1], entry[2]}
  end
  if #new > 0 then redis.call('HSET', KEYS[2], 'taken_until', new[#new][1]) end
  -- The next one waits for what comes of this one.
  if #new > 0 and seems_down then
    -- Another release may have written the policy without it.
    hold_ms = now + 1000 * (tonumber(wanted.timeout_s) or 60) + 1000
    redis.call('HSET', KEYS[2], 'hold_ms', hold_ms)
  end
end

if #found == 0 then
  local _, next_ms = unpack(redis.call('ZRANGE', KEYS[5], '(' .. ms_text(now), '(' .. UNDER_WAY, 'BYSCORE', 'LIMIT', 0, 1,
    'WITHSCORES'))
  next_ms = tonumber(next_ms)
  if is_held then next_ms = math.min(next_ms or math.huge, tonumber(hold_ms)) end
  -- Until then an append sends no wakeup.
  if is_held then
    redis.call('HSET', KEYS[2], 'next_attempt_ms', ms_text(next_ms))
  else
    redis.call('HDEL', KEYS[2], 'next_attempt_ms')
  end
  return {'waiting', next_ms and ms_text(next_ms) or ''}
end
if rate_interval then redis.call('HSET', KEYS[2], 'rate_at_ms', string.format('%.3f', at + rate_interval)) end
local secrets = signing_texts(KEYS[1], secret_lines, secret, made_ms, now)
return {'taken', config_version or '', url, headers, secrets, failed_attempts or '0', policy,
  trouble and '1' or '', unpack(found)}
