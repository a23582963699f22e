#!lua flags=allow-oom
-- Ends a recount: replaces what was counted before it by what it found; what was added meanwhile stays.
-- KEYS: usage, lock
-- ARGV: token in the lock, then for queues, sessions and device types: the count before, and what was found
-- Reply: bytes found in all, or nil when another one has the lock, or the account was deleted
-- Touches at most: 24 fields.
--include usage
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return false end
redis.call('DEL', KEYS[2])
local found = 0
for i, kind in ipairs({'queues', 'sessions', 'device_types'}) do
  redis.call('HINCRBY', KEYS[1], kind, ARGV[2 * i + 1] - ARGV[2 * i])
  found = found + ARGV[2 * i + 1]
end
local now = clock_ms()
local _, _, kept = read_usage(KEYS[1], now)
found = found + kept
redis.call('HSET', KEYS[1], 'recounted_at_ms', string.format('%.0f', now), 'recounted', string.format('%.0f', found))
redis.call('PEXPIRE', KEYS[1], USAGE_TTL_MS)
return found
