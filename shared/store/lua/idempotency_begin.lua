#!lua
-- Marks a request with an Idempotency-Key as running, unless it runs elsewhere or has its response already.
-- The running request renews its mark with the same call; the mark of a killed gateway expires.
-- No allow-oom: a full Redis refuses the events too, and must not fill up with responses.
-- KEYS: idempotency     ARGV: runner, fingerprint, TTL of the mark in ms
-- Reply: {'begun'} | {'running'} | {'answered', response} | {'differs'}
-- Touches at most: 3 fields.
local request = redis.call('HMGET', KEYS[1], 'runner', 'fingerprint', 'response')
if request[2] and request[2] ~= ARGV[2] then return {'differs'} end
if request[3] then return {'answered', request[3]} end
if request[1] and request[1] ~= ARGV[1] then return {'running'} end
redis.call('HSET', KEYS[1], 'runner', ARGV[1], 'fingerprint', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {'begun'}
