#!lua
-- Writes one field of an account's routes and gives them a new version, so that no gateway trusts its copy.
-- Versions are random: a counter could come back to an old number when Redis loses its last writes.
-- What belongs to an API key is written only while the key stands there: a revocation leaves nothing behind.
-- KEYS: routes     ARGV: new version, field, value, field that must be there or ''
-- Returns 1, or 0 when that field is not there
if ARGV[4] ~= '' and redis.call('HEXISTS', KEYS[1], ARGV[4]) == 0 then return 0 end
if redis.call('HGET', KEYS[1], ARGV[2]) == ARGV[3] then return 1 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], ARGV[2], ARGV[3])
return 1
