#!lua flags=allow-oom
-- Drops fields of an account's routes and gives them a new version. With a value given, only while the field
-- still holds it: a deletion that races a re-creation must not erase the new incarnation.
-- KEYS: routes     ARGV: new version, expected value or '', field...
-- Returns 1
for i = 3, #ARGV do
  if ARGV[2] == '' or redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[2] then
    redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
redis.call('HSET', KEYS[1], 'version', ARGV[1])
return 1
