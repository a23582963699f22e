#!lua flags=no-writes,allow-oom
-- Reads how many bytes the retained log of a topic takes: its entries, as the append script counts them, and its state.
-- KEYS: stream, state
-- Reply: bytes
-- Touches at most: 1 field.
local BLOCK_BYTES, STATE_BYTES = 4400, 700
local bytes = redis.call('HGET', KEYS[2], 'bytes')
if not bytes then return 0 end
if redis.call('EXISTS', KEYS[1]) == 0 then return STATE_BYTES end
return math.max(BLOCK_BYTES, tonumber(bytes)) + STATE_BYTES
