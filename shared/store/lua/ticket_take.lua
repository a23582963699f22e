#!lua flags=allow-oom
-- Gives a ticket to a reader, in place of the one that had it: from the first on it is good until its token ends.
-- KEYS: tickets, ends     ARGV: hash of the ticket, reader
-- Reply: {'taken', record, reader before or ''} | {'gone'}
-- Touches at most: 3 fields.
--include now
local record = redis.call('HGET', KEYS[1], ARGV[1])
local ends_ms = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not record or not ends_ms or tonumber(ends_ms) <= now_ms() then return {'gone'} end
local field = ARGV[1] .. ':reader'
local previous = redis.call('HGET', KEYS[1], field)
redis.call('HSET', KEYS[1], field, ARGV[2])
redis.call('ZADD', KEYS[2], string.match(record, '^%x+ (%d+)'), ARGV[1])
return {'taken', record, previous or ''}
