#!lua flags=allow-oom
-- Frees what a revoked API key leaves behind until a TTL ends: attempts of its webhook, tracked receipts, what is known of
-- channels that ended, and the responses of its requests with an Idempotency-Key. UNLINK frees large values in the
-- background.
-- KEYS: attempts, those of an older release, receipts, ended channels, prefix of the responses
-- Reply: the number of names freed
-- Touches at most: 11 names.
--include idempotency
local names = {KEYS[1], KEYS[2], KEYS[3], KEYS[4]}
for age = 0, PERIODS + 1 do names[#names + 1] = responses(KEYS[5], age) end
return redis.call('UNLINK', unpack(names))
