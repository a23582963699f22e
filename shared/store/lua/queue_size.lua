#!lua flags=no-writes,allow-oom
-- Reads how many bytes are pending in a queue, as the append script counts them.
-- KEYS: channel, queue
-- Reply: bytes
-- Touches at most: 1 entry.
--include entries
local first, total = first_entry(KEYS[2]), redis.call('HGET', KEYS[1], 'total')
if not first or not total then return 0 end
return tonumber(total) - total_before(first)
