#!lua flags=allow-oom
-- Makes a failing webhook due now; the failed attempts and since when it fails stay recorded.
-- Changes the config version: the failure of an attempt that is under way must not postpone the next one.
-- KEYS: channel     ARGV: a new config version
-- Reply: 1, 0 when there is no webhook, or -1 when it is disabled
-- Touches at most: 7 fields.
local kind, disabled, taken_until = unpack(redis.call('HMGET', KEYS[1], 'kind', 'disabled', 'taken_until'))
if kind ~= 'webhook' then return 0 end
if disabled then return -1 end
redis.call('HDEL', KEYS[1], 'next_attempt_ms', 'hold_ms', 'asked_ms')
if taken_until then redis.call('HSET', KEYS[1], 'hurry', 1) end
redis.call('HSET', KEYS[1], 'config_version', ARGV[1])
return 1
