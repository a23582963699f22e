#!lua flags=allow-oom
-- Ends a request with an Idempotency-Key: keeps its response, or frees the key when there is none.
-- Leaves alone what another runner has begun or answered since. An expired mark is no obstacle, and neither is a full
-- Redis: the events are queued, and a repetition must not queue them again.
-- KEYS: running, prefix of the responses     ARGV: runner, field, fingerprint, response or ''
-- Reply: {'kept'} | {'freed'} | {'stale'} | {'answered', response}: another runner's, of the same request
-- Touches at most: 8 fields.
--include idempotency
local running, runner = running_request(KEYS[1])
if running and runner ~= ARGV[1] then return {'stale'} end
local fingerprint, response = kept_response(KEYS[2], ARGV[2])
if fingerprint then return fingerprint == ARGV[3] and {'answered', response} or {'stale'} end
redis.call('DEL', KEYS[1])
if ARGV[4] == '' then return {'freed'} end
local name = responses(KEYS[2], 0)
redis.call('HSET', name, ARGV[2], ARGV[3] .. ARGV[4])
if redis.call('PTTL', name) < 0 then
  -- Its end is in the background: at the end of a TTL Redis may free a large hash within one step.
  redis.call('UNLINK', responses(KEYS[2], PERIODS))
  redis.call('EXPIRE', name, (PERIODS + 1) * PERIOD_S)
end
return {'kept'}
