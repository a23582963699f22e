#!lua
-- Marks a request with an Idempotency-Key as running, unless it runs already or has its response.
-- The mark ends by itself, at a time by Redis' clock: that of a killed gateway blocks its key no longer.
-- No allow-oom: a full Redis refuses the events too, and must not fill up with responses.
-- KEYS: running, prefix of the responses
-- ARGV: runner, field, fingerprint, TTL of the mark in ms, the most responses kept
-- Reply: {'begun', end of the mark in ms} | {'running'} | {'answered', response} | {'differs'}
--      | {'full', seconds until the oldest responses are dropped}
-- Touches at most: 11 fields.
--include idempotency
local fingerprint, response = kept_response(KEYS[2], ARGV[2])
if fingerprint then return fingerprint == ARGV[3] and {'answered', response} or {'differs'} end
local running = running_request(KEYS[1])
if running then return {running == ARGV[3] and 'running' or 'differs'} end
local count = 0
for age = 0, PERIODS - 1 do count = count + redis.call('HLEN', responses(KEYS[2], age)) end
if count >= tonumber(ARGV[5]) then return {'full', (period + 1) * PERIOD_S - now_s} end
redis.call('SET', KEYS[1], ARGV[3] .. ARGV[1], 'PX', ARGV[4])
return {'begun', begun_ms + ARGV[4]}
