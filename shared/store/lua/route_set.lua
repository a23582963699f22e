#!lua
-- Writes one field of an account's routes and gives them a new version, so that no gateway trusts its copy.
-- Versions are random: a counter could come back to an old number when Redis loses its last writes.
-- KEYS: routes     ARGV: new version, field, value
-- Returns 1
redis.call('HSET', KEYS[1], 'version', ARGV[1], ARGV[2], ARGV[3])
return 1
