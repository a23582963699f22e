#!lua
-- Notes an account as the child of another, which cannot be deleted then.
-- KEYS: account, children     ARGV: id of the child
-- Reply: 1, or 0 without such an account, or when it is being deleted
-- Touches at most: 1 member.
local account = redis.call('HMGET', KEYS[1], 'name', 'deleting')
if not account[1] or account[2] then return 0 end
redis.call('SADD', KEYS[2], ARGV[1])
return 1
