#!lua flags=no-writes,allow-oom
-- Reads how many bytes a queue takes: what is pending, as the append script counts it, and at least the first block of a
-- stream, which Redis allocates as a whole. And likewise the attempts of a webhook, which outlive an API key's.
-- KEYS: channel, queue, attempts
-- Reply: bytes
-- Touches at most: 3 entries.
--include attempts
--include entries
local BLOCK_BYTES = 4400
local first, total, first_total = first_entry(KEYS[2]), unpack(redis.call('HMGET', KEYS[1], 'total', 'first_total'))
local pending = first and total
  and math.max(BLOCK_BYTES, total - math.max(total_before(first), tonumber(first_total or 0))) or 0
local attempts = size_of_attempts(KEYS[3])
return pending + (attempts > 0 and math.max(BLOCK_BYTES, attempts) or 0)
