#!lua flags=no-writes,allow-oom
-- Reads how many bytes a queue takes: what is pending, as the append script counts it, and at least the first block of a
-- stream, which Redis allocates as a whole. And likewise the attempts of a webhook, which outlive an API key's.
-- KEYS: channel, queue, attempts
-- Reply: bytes
-- Touches at most: 3 entries.
--include attempts
--include entries
local BLOCK_BYTES = 4400
local first, total = first_entry(KEYS[2]), redis.call('HGET', KEYS[1], 'total')
local pending = first and total and math.max(BLOCK_BYTES, tonumber(total) - total_before(first)) or 0
local attempts = size_of_attempts(KEYS[3])
return pending + (attempts > 0 and math.max(BLOCK_BYTES, attempts) or 0)
