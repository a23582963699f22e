#!lua flags=allow-oom
-- Begins the recount of an account, unless another process counts: the lock of a killed one ends.
-- allow-oom: the account that has filled Redis must be found.
-- KEYS: usage, lock     ARGV: token, TTL of the lock in ms
-- Reply: {queues, sessions, device types, streams} as counted so far | nil while another process counts
-- Touches at most: 5 fields.
if redis.call('EXISTS', KEYS[2]) == 1 then return false end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
local counted = redis.call('HMGET', KEYS[1], 'queues', 'sessions', 'device_types', 'streams')
return {counted[1] or '0', counted[2] or '0', counted[3] or '0', counted[4] or '0'}
