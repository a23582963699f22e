#!lua flags=allow-oom
-- Ends a request with an Idempotency-Key: keeps its answer, or frees the key if there is none to keep.
-- What another request has begun or answered since is left alone. A mark that is gone is no hindrance: nobody
-- else has begun, and what is queued must be known as queued. For that reason allow-oom, too.
-- KEYS: idempotency     ARGV: runner, fingerprint, answer or '', TTL of the answer in ms
-- Returns 'kept' | 'freed' | 'stale'
local found = redis.call('HMGET', KEYS[1], 'runner', 'answer')
if found[2] or (found[1] and found[1] ~= ARGV[1]) then return 'stale' end
redis.call('DEL', KEYS[1])
if ARGV[3] == '' then return 'freed' end
redis.call('HSET', KEYS[1], 'fingerprint', ARGV[2], 'answer', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 'kept'
