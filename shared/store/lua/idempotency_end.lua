#!lua flags=allow-oom
-- Ends a request with an Idempotency-Key: keeps its response, or frees the key when there is none.
-- Leaves alone what another runner has begun or answered since. An expired mark is no obstacle, and neither is a full
-- Redis: the events are queued, and a repetition must not queue them again.
-- KEYS: idempotency     ARGV: runner, fingerprint, response or '', TTL of the response in ms
-- Reply: 'kept' | 'freed' | 'stale'
-- Touches at most: 3 fields.
local request = redis.call('HMGET', KEYS[1], 'runner', 'response')
if request[2] or (request[1] and request[1] ~= ARGV[1]) then return 'stale' end
redis.call('DEL', KEYS[1])
if ARGV[3] == '' then return 'freed' end
redis.call('HSET', KEYS[1], 'fingerprint', ARGV[2], 'response', ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 'kept'
