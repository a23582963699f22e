#!lua flags=allow-oom
-- Drops fields of an account's routes and raises their version. With a value given, only while the field
-- still holds it: a deletion that races a re-creation must not erase the new incarnation.
-- KEYS: routes     ARGV: expected value or '', field...
-- Returns the version
for i = 2, #ARGV do
  if ARGV[1] == '' or redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[1] then
    redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return redis.call('HINCRBY', KEYS[1], 'version', 1)
