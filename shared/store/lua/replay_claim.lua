#!lua flags=allow-oom
-- Gives a running replay to a process, unless another one has it: that one renews its lease with each step.
-- KEYS: replay     ARGV: runner, ms of the lease
-- Reply: {'claimed', field, value, ...} | {'held'} | {'ended'}
-- Touches at most: 20 fields.
--include now
local state, runner, until_ms = unpack(redis.call('HMGET', KEYS[1], 'state', 'runner', 'runner_until_ms'))
if state ~= 'running' then return {'ended'} end
if runner and runner ~= ARGV[1] and tonumber(until_ms) > now_ms() then return {'held'} end
redis.call('HSET', KEYS[1], 'runner', ARGV[1], 'runner_until_ms', string.format('%.0f', now_ms() + ARGV[2]))
local reply = redis.call('HGETALL', KEYS[1])
table.insert(reply, 1, 'claimed')
return reply
