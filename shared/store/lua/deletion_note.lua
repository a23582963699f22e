#!lua flags=allow-oom
-- Notes that the deletion of an account has begun: the reaper finishes it if the gateway does not.
-- A script, because a full Redis refuses a plain SADD, and a deletion frees memory.
-- KEYS: deletions     ARGV: id of the account
-- Reply: 1
-- Touches at most: 1 member.
redis.call('SADD', KEYS[1], ARGV[1])
return 1
