#!lua
-- Writes one field of an account's table and gives them a new version, so that no gateway trusts its copy.
-- Versions are random: a counter could come back to an old number when Redis loses its last writes.
-- The log of changes says which field came with which version, and which version that followed.
-- What belongs to an API key is written only while the key stands there: a revocation leaves nothing behind.
-- KEYS: table, route changes     ARGV: new version, field, value, field that must be there or ''
-- Returns 1, or 0 when that field is not there
if ARGV[4] ~= '' and redis.call('HEXISTS', KEYS[1], ARGV[4]) == 0 then return 0 end
if redis.call('HGET', KEYS[1], ARGV[2]) == ARGV[3] then return 1 end
local before = redis.call('HGET', KEYS[1], 'version') or ''
redis.call('HSET', KEYS[1], 'version', ARGV[1], ARGV[2], ARGV[3])
redis.call('LPUSH', KEYS[2], before .. ' ' .. ARGV[1] .. ' ' .. ARGV[2])
-- A fraction of what reading all would cost, and bounded, since routing_changes walks it.
local kept = math.max(64, math.min(4096, math.floor(redis.call('HLEN', KEYS[1]) / 8)))
redis.call('LTRIM', KEYS[2], 0, kept - 1)
redis.call('EXPIRE', KEYS[2], 3600)
return 1
