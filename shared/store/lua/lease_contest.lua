#!lua flags=allow-oom
-- Makes ARGV[1] the owner of a channel of long polls, unless another poll has the lease and is open.
-- The call contests a lease that it finds, and wakes its owner. An open poll confirms the lease by its next read, and
-- one that is ending gets more time by it (queue_read.lua). An owner that has not read within a second, by Redis'
-- clock, loses the lease: its edge is dead, frozen or cut off. The caller repeats the call for as long as the reply is
-- 'contested', and with it the wakeup, which may be lost.
-- KEYS: key, channel     ARGV: owner, the owner whose lease the caller has contested, or ''
-- Reply: {'claimed', previous owner or '', generation, now in ms} | {'contested', owner} | {'held', owner} | {'revoked'}
--      | {'absent'} | {'paused'}
-- Touches at most: 5 fields.
--include contest
local kind, generation, previous, contested_until_ms, paused =
  unpack(redis.call('HMGET', KEYS[2], 'kind', 'generation', 'owner', 'contested_until_ms', 'paused'))
if not kind and redis.call('EXISTS', KEYS[1]) == 0 then return {'revoked'} end
if kind ~= 'pull' then return {'absent'} end
if paused then return {'paused'} end
if previous then
  local was_contested = previous == ARGV[2]
  if was_contested and not contested_until_ms then return {'held', previous} end
  local is_over = contested_until_ms and now_ms() >= tonumber(contested_until_ms)
  if not (was_contested and is_over) then
    -- The owner gets its whole time for each contest: the last one may be long ago, and its wakeup lost.
    if is_over or not contested_until_ms then contest(KEYS[2]) end
    redis.call('PUBLISH', 'wakeup:' .. string.match(previous, '^(.*)/'), string.match(KEYS[2], '{(.*)}'))
    return {'contested', previous}
  end
  redis.call('HDEL', KEYS[2], 'contested_until_ms')
end
local claimed_ms = string.format('%.0f', now_ms())
redis.call('HSET', KEYS[2], 'owner', ARGV[1], 'claimed_ms', claimed_ms)
return {'claimed', previous or '', generation, claimed_ms}
