#!lua flags=allow-oom
-- Ends a replay, or gives it back, for the process that has it; '' cancels it.
-- KEYS: replay     ARGV: runner or '', new state or '' to give it back, error, TTL in ms
-- Reply: 1, or 0 when it is not running, or another one has it
-- Touches at most: 8 fields.
--include now
local state, runner = unpack(redis.call('HMGET', KEYS[1], 'state', 'runner'))
if state ~= 'running' or (ARGV[1] ~= '' and runner ~= ARGV[1]) then return 0 end
redis.call('HDEL', KEYS[1], 'runner', 'runner_until_ms')
if ARGV[2] ~= '' then
  redis.call('HDEL', KEYS[1], 'waits')
  redis.call('HSET', KEYS[1], 'state', ARGV[2], 'error', ARGV[3], 'ended_ms', string.format('%.0f', now_ms()))
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
return 1
