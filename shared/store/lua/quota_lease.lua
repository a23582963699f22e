#!lua flags=allow-oom
-- Leases tokens of an account's rates, or of one of its API keys', to a gateway. Redis' clock fills the buckets.
-- A bucket holds the burst of its rate. It gives what is needed while it holds that, or is half full, and goes
-- into debt for the rest; beyond that it gives of what is wanted as much as it has, but no more than fills in 100 ms.
-- Also while Redis is full: an account's usage is read by it.
-- Touches at most: 2 hashes, with a field and an override for each of 3 buckets.
-- KEYS: account, rates
-- ARGV: usual burst in s, then groups of five: bucket, its override in the account's record, usual rate or '' for
--       none, tokens needed, tokens wanted (no fewer)
-- Reply: the burst, the number of quotas that the record has for API keys, then for each bucket: rate or '',
--        tokens given, tokens left (below zero: a debt)
local BLOCK_S = 0.1
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local burst = redis.call('HGET', KEYS[1], 'quota:burst_s') or ARGV[1]
local of_keys = redis.call('HEXISTS', KEYS[1], 'key_quota:events_per_s')
  + redis.call('HEXISTS', KEYS[1], 'key_quota:bytes_per_s')
local reply, longest_ms = {burst, of_keys}, 0
for i = 2, #ARGV, 5 do
  local rate = redis.call('HGET', KEYS[1], ARGV[i + 1]) or ARGV[i + 2]
  local given, left = 0, 0
  if rate ~= '' then
    local a_ms = tonumber(rate) / 1000
    local size = a_ms * 1000 * tonumber(burst)
    local needed, wanted = tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4])
    local level, at_ms = string.match(redis.call('HGET', KEYS[2], ARGV[i]) or '', '^(%S+) (%d+)$')
    left = size
    -- The clock of a new primary may be behind: then nothing is added.
    if level then left = math.min(size, level + math.max(0, now_ms - at_ms) * a_ms) end
    if left >= math.min(needed, size / 2) then
      -- The gateway may not know the rate yet, and want all that others and its own next call need.
      given = math.max(needed, math.min(wanted, math.ceil(tonumber(rate) * BLOCK_S), math.floor(left)))
      left = left - given
    end
    redis.call('HSET', KEYS[2], ARGV[i], string.format('%.3f %d', left, now_ms))
    longest_ms = math.max(longest_ms, math.ceil((size - left) / a_ms))
  end
  reply[#reply + 1] = rate
  reply[#reply + 1] = given
  reply[#reply + 1] = math.floor(left)
end
-- Full buckets need not be stored.
redis.call('PEXPIRE', KEYS[2], longest_ms + 1000)
return reply
