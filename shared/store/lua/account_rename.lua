#!lua
-- Renames an account, unless it is gone or being deleted.
-- KEYS: account     ARGV: name
-- Reply: 1, or 0 without such an account
-- Touches at most: 2 fields.
local account = redis.call('HMGET', KEYS[1], 'name', 'deleting')
if not account[1] or account[2] then return 0 end
redis.call('HSET', KEYS[1], 'name', ARGV[1])
return 1
