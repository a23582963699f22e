-- The ids of an account's channels, in the order of which they are listed: a member for each `channel:` field of the
-- routing table, written in the step that writes the field.
local function index_channel(ids, field, is_there)
  local member = string.match(field, '^channel:(.+)$')
  if not member then return end
  if is_there then redis.call('ZADD', ids, 0, member) else redis.call('ZREM', ids, member) end
end
