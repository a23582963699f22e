#!lua
-- Marks a request with an Idempotency-Key as running, unless the same runs or was answered already.
-- Called again by the request that runs, it renews the mark: nobody else has to know that a gateway died.
-- No allow-oom: a full Redis would refuse the events too, and must not fill up with answers.
-- KEYS: idempotency     ARGV: runner, fingerprint, TTL of the mark in ms
-- Returns {'begun'} | {'running'} | {'answered', answer} | {'differs'}
local found = redis.call('HMGET', KEYS[1], 'runner', 'fingerprint', 'answer')
if found[2] and found[2] ~= ARGV[2] then return {'differs'} end
if found[3] then return {'answered', found[3]} end
if found[1] and found[1] ~= ARGV[1] then return {'running'} end
redis.call('HSET', KEYS[1], 'runner', ARGV[1], 'fingerprint', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {'begun'}
