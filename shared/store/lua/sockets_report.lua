#!lua flags=allow-oom
-- Notes how many sockets and polls of an account an edge holds, and says how many the others hold.
-- Forgets edges that have not reported for an hour: each does so every 20 minutes.
-- Touches at most: a field for each edge.
-- KEYS: account, sockets     ARGV: instance, number, usual quota
-- Reply: {quota, then for each other edge: instance, number}
local FORGET_MS = 3600 * 1000
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local reply = {tonumber(redis.call('HGET', KEYS[1], 'quota:sockets') or ARGV[3])}
local stored = redis.call('HGETALL', KEYS[2])
for i = 1, #stored, 2 do
  local number, at_ms = string.match(stored[i + 1], '^(%d+) (%d+)$')
  if now_ms - at_ms > FORGET_MS then
    redis.call('HDEL', KEYS[2], stored[i])
  elseif stored[i] ~= ARGV[1] then
    reply[#reply + 1] = stored[i]
    reply[#reply + 1] = tonumber(number)
  end
end
if ARGV[2] == '0' then
  redis.call('HDEL', KEYS[2], ARGV[1])
else
  redis.call('HSET', KEYS[2], ARGV[1], string.format('%s %d', ARGV[2], now_ms))
end
redis.call('PEXPIRE', KEYS[2], FORGET_MS)
return reply
