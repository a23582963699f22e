#!lua flags=allow-oom
-- Drops fields of an account's table and gives them a new version; see routing_set about that and its log.
-- KEYS: table, route changes     ARGV: new version, field...
-- Returns how many of the fields were there; without any, nothing changes
local gone = {}
for i = 2, #ARGV do
  if redis.call('HDEL', KEYS[1], ARGV[i]) == 1 then gone[#gone + 1] = ARGV[i] end
end
if #gone == 0 then return 0 end
local before = redis.call('HGET', KEYS[1], 'version') or ''
redis.call('HSET', KEYS[1], 'version', ARGV[1])
redis.call('LPUSH', KEYS[2], before .. ' ' .. ARGV[1] .. ' ' .. table.concat(gone, ' '))
local kept = math.max(64, math.min(4096, math.floor(redis.call('HLEN', KEYS[1]) / 8)))
redis.call('LTRIM', KEYS[2], 0, kept - 1)
redis.call('EXPIRE', KEYS[2], 3600)
return #gone
