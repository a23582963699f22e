#!lua flags=allow-oom
-- Cuts a subject off: its tokens that were issued until now are refused from now on. Also in a full Redis.
-- A cut-off ends once every token that it could refuse has expired. Then it makes room, some at a time.
-- KEYS: account, cut-offs     ARGV: hash of the subject, ms for which it is kept, how many there may be
-- Reply: {'cut', time in ms} | {'full', ms at which the first one ends} | {'absent'} without the account
-- Touches at most: 104 members.
--include now
local name, deleting = unpack(redis.call('HMGET', KEYS[1], 'name', 'deleting'))
if not name or deleting then return {'absent'} end
local now, kept_ms = now_ms(), tonumber(ARGV[2])
local ended = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - kept_ms, 'LIMIT', 0, 100)
if #ended > 0 then redis.call('ZREM', KEYS[2], unpack(ended)) end
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[3]) and not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
  return {'full', first[2] + kept_ms}
end
redis.call('ZADD', KEYS[2], 'GT', now, ARGV[1])
redis.call('PEXPIRE', KEYS[2], kept_ms)
return {'cut', now}
