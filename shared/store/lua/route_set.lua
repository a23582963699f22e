#!lua
-- Writes one field of an account's routes and raises their version, so that no gateway trusts an older copy.
-- KEYS: routes     ARGV: field, value
-- Returns the new version
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return redis.call('HINCRBY', KEYS[1], 'version', 1)
