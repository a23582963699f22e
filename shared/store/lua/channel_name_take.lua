#!lua
-- Gives a channel's name to one id, if no other id of the account has it. The caller writes the record behind it, and
-- takes the name once more then: a caller that finds a name whose channel has no such name may take it away before.
-- Not while the routing table has it for the channel: it may have got the name since the caller looked.
-- KEYS: names, account, routing
-- ARGV: name, id, the id that the caller found not to have the name, or '', how the table's value begins that has it
-- Reply: {'taken'} | {'held', the id that has it} | {'gone'} for an account that is being deleted
-- Touches at most: 1 field and 3 members.
if redis.call('HEXISTS', KEYS[2], 'deleting') == 1 then return {'gone'} end
local first = ARGV[1] .. '\0'
local found = redis.call('ZRANGEBYLEX', KEYS[1], '[' .. first, '(' .. ARGV[1] .. '\1', 'LIMIT', 0, 1)[1]
if found then
  local id = string.sub(found, #first + 1)
  if id == ARGV[2] then return {'taken'} end
  if id ~= ARGV[3] then return {'held', id} end
  local value = redis.call('HGET', KEYS[3], 'native:' .. id)
  if value and string.sub(value, 1, #ARGV[4]) == ARGV[4] then return {'held', id} end
  redis.call('ZREM', KEYS[1], found)
end
redis.call('ZADD', KEYS[1], 0, first .. ARGV[2])
return {'taken'}
