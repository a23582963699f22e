#!lua
-- Records a replay for a channel that has none running.
-- KEYS: channel, replay     ARGV: TTL in ms, then pairs: field, value
-- Reply: 'begun' | 'running' | 'absent'
-- Touches at most: 12 fields.
if redis.call('HEXISTS', KEYS[1], 'kind') == 0 then return 'absent' end
if redis.call('HGET', KEYS[2], 'state') == 'running' then return 'running' end
redis.call('UNLINK', KEYS[2])
redis.call('HSET', KEYS[2], 'state', 'running', unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return 'begun'
