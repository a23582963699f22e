#!lua flags=allow-oom
-- Drops fields of an account's routes and gives them a new version.
-- KEYS: routes     ARGV: new version, field...
-- Returns 1
for i = 2, #ARGV do
  redis.call('HDEL', KEYS[1], ARGV[i])
end
redis.call('HSET', KEYS[1], 'version', ARGV[1])
return 1
