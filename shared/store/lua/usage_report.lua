#!lua flags=allow-oom
-- Adds to what an account has stored, and reads how much that is. Writes nothing for one that is being deleted.
-- KEYS: account, usage
-- ARGV: the installation's quota, then bytes to add: queues, device types, receipts, responses
-- Reply: {bytes stored, quota, ms since the last recount or -1, bytes that it found}
-- Touches at most: 24 fields.
--include usage
local quota, deleting = unpack(redis.call('HMGET', KEYS[1], 'quota:stored_bytes', 'deleting'))
quota = tonumber(quota or ARGV[1])
if deleting then return {0, quota, 0, 0} end
local now = clock_ms()
local names = {'queues', 'device_types', field_of('receipts', now), field_of('responses', now)}
for i, name in ipairs(names) do
  if ARGV[i + 1] ~= '0' then redis.call('HINCRBY', KEYS[2], name, ARGV[i + 1]) end
end
local fields, sum = read_usage(KEYS[2], now)
redis.call('PEXPIRE', KEYS[2], USAGE_TTL_MS)
local age = fields.recounted_at_ms and math.max(0, now - fields.recounted_at_ms) or -1
return {sum, quota, age, fields.recounted or 0}
