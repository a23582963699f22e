#!lua
-- Writes one field of a routing table.
-- An API key's fields are written only while its `key:` field exists: a revocation must leave none behind.
-- KEYS: routing, log     ARGV: new version, field, value, field that must exist or ''
-- Reply: 1, or 0 when that field does not exist
--include routing_log
if ARGV[4] ~= '' and redis.call('HEXISTS', KEYS[1], ARGV[4]) == 0 then return 0 end
if redis.call('HGET', KEYS[1], ARGV[2]) == ARGV[3] then return 1 end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
log_change(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
return 1
