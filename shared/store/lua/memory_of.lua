#!lua flags=no-writes,allow-oom
-- Reads how much memory some values take.
-- KEYS: the names     ARGV: how many parts of each value are measured; 0: all of them
-- Reply: bytes
-- Touches at most: 2 names, with at most 1,000 parts.
local sum = 0
for _, name in ipairs(KEYS) do sum = sum + (redis.call('MEMORY', 'USAGE', name, 'SAMPLES', ARGV[1]) or 0) end
return sum
