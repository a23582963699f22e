#!lua flags=allow-oom
-- Begins the deletion of an account, or finds it begun. From then on it counts as missing: no key is made in it, no
-- child, and no binding. The caller frees what it has, and calls account_end.lua.
-- KEYS: account, children, counts     ARGV: '1' to delete it with its API keys
-- Reply: {'deleting', parent or ''} | {'has_children'} | {'has_keys'} | {'absent'}
-- Touches at most: 4 fields.
local account = redis.call('HMGET', KEYS[1], 'name', 'parent', 'deleting')
if not account[1] then return {'absent'} end
if not account[3] then
  if redis.call('SCARD', KEYS[2]) > 0 then return {'has_children'} end
  if ARGV[1] ~= '1' and tonumber(redis.call('HGET', KEYS[3], 'channels') or 0) > 0 then return {'has_keys'} end
  redis.call('HSET', KEYS[1], 'deleting', 1)
end
return {'deleting', account[2] or ''}
