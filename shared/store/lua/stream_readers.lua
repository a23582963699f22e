#!lua flags=no-writes,allow-oom
-- Counts the readers of a topic, by what its edges have noted in the last 90 seconds.
-- KEYS: readers
-- Reply: their number
-- Touches at most: a field for each edge.
--include now
local FORGET_MS = 90 * 1000
local now, count, noted = now_ms(), 0, redis.call('HVALS', KEYS[1])
for _, each in ipairs(noted) do
  local number, at_ms = string.match(each, '^(%d+) (%d+)$')
  if now - at_ms <= FORGET_MS then count = count + number end
end
return count
