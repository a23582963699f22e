#!lua flags=allow-oom
-- Ends a recount: replaces what was counted before it by what it found; what was added meanwhile stays.
-- KEYS: account, usage, lock
-- ARGV: token in the lock, then for queues, sessions, device types and streams: the count before, and what was found
-- Reply: bytes found in all, or nil when another one has the lock, or the account was deleted
-- Touches at most: 24 fields.
--include usage
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return false end
redis.call('DEL', KEYS[3])
if redis.call('HEXISTS', KEYS[1], 'deleting') == 1 then return false end
local found = 0
for i, kind in ipairs({'queues', 'sessions', 'device_types', 'streams'}) do
  redis.call('HINCRBY', KEYS[2], kind, ARGV[2 * i + 1] - ARGV[2 * i])
  found = found + ARGV[2 * i + 1]
end
local now = clock_ms()
local _, _, kept = read_usage(KEYS[2], now)
found = found + kept
redis.call('HSET', KEYS[2], 'recounted_at_ms', string.format('%.0f', now), 'recounted', string.format('%.0f', found))
redis.call('PEXPIRE', KEYS[2], USAGE_TTL_MS)
return found
