#!lua flags=allow-oom
-- Begins the deletion of an account, or finds it begun. From then on it counts as missing: no key is made in it, no
-- child, and no binding. The caller frees what it has, and calls account_end.lua.
-- KEYS: account, children
-- Reply: {'deleting', parent or ''} | {'has_children'} | {'absent'}
-- Touches at most: 3 fields.
local account = redis.call('HMGET', KEYS[1], 'name', 'parent', 'deleting')
if not account[1] then return {'absent'} end
if not account[3] then
  if redis.call('SCARD', KEYS[2]) > 0 then return {'has_children'} end
  redis.call('HSET', KEYS[1], 'deleting', 1)
end
return {'deleting', account[2] or ''}
