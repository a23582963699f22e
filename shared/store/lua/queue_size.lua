#!lua flags=no-writes,allow-oom
-- Reads how many bytes a queue takes: what is pending, as the append script counts it, and at least the first block of a
-- stream, which Redis allocates as a whole.
-- KEYS: channel, queue
-- Reply: bytes
-- Touches at most: 1 entry.
--include entries
local BLOCK_BYTES = 4400
local first, total = first_entry(KEYS[2]), redis.call('HGET', KEYS[1], 'total')
if not first or not total then return 0 end
return math.max(BLOCK_BYTES, tonumber(total) - total_before(first))
