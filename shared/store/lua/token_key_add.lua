#!lua
-- Adds a key that verifies tokens of an account, unless it has as many as it may have. The key that the server signs with is
-- made once and counts beside them: a second maker gets the first one's.
-- A script, or two at once would exceed the bound, or a key would outlive its account.
-- KEYS: account, token keys     ARGV: id of the key, record, how many there may be, '1' for the server's own
-- Reply: {'made', id, record} | {'found', id, record} | {'full'} | {'absent'} without the account
-- Touches at most: 5 fields.
local name, deleting = unpack(redis.call('HMGET', KEYS[1], 'name', 'deleting'))
if not name or deleting then return {'absent'} end
local servers = redis.call('HGET', KEYS[2], 'server')
if ARGV[4] == '1' then
  local record = servers and redis.call('HGET', KEYS[2], servers)
  if record then return {'found', servers, record} end
  redis.call('HSET', KEYS[2], 'server', ARGV[1])
elseif redis.call('HLEN', KEYS[2]) - (servers and 2 or 0) >= tonumber(ARGV[3]) then
  return {'full'}
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return {'made', ARGV[1], ARGV[2]}
