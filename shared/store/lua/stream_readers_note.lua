#!lua flags=allow-oom
-- Notes how many readers of a topic an edge has.
-- Forgets edges that have not said so for 90 seconds: each does so every 30.
-- KEYS: readers     ARGV: instance, number
-- Touches at most: a field for each edge.
--include now
local FORGET_MS = 90 * 1000
local now = now_ms()
local noted = redis.call('HGETALL', KEYS[1])
for i = 1, #noted, 2 do
  if now - string.match(noted[i + 1], '%d+$') > FORGET_MS then redis.call('HDEL', KEYS[1], noted[i]) end
end
if ARGV[2] == '0' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%s %.0f', ARGV[2], now))
  redis.call('PEXPIRE', KEYS[1], FORGET_MS)
end
