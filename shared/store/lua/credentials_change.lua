#!lua flags=allow-oom
-- Gives all credentials a new version: gateways read the API keys that they have in memory again.
-- A script, because a full Redis refuses a plain HSET, and must not keep a revoked key valid.
-- Touches at most: 1 field.
-- KEYS: routing of all accounts     ARGV: new version
-- Reply: 1
redis.call('HSET', KEYS[1], 'credentials', ARGV[1])
return 1
